//! Conditions and orders made of the port's filters and pages.

use std::fmt::Write as _;

use gust_ports::metastore::{Direction, Page, TimeRange};

use crate::dialect::{Statement, Value};

/// A `WHERE` clause being written: conditions joined by `AND`.
pub(super) struct Conditions<'s> {
    statement: &'s mut Statement,
    is_first: bool,
}

impl<'s> Conditions<'s> {
    pub(super) fn new(statement: &'s mut Statement) -> Self {
        Self { statement, is_first: true }
    }

    /// Where the next condition goes.
    pub(super) fn and(&mut self) -> &mut Statement {
        self.statement.raw(if self.is_first { " WHERE " } else { " AND " });
        self.is_first = false;
        self.statement
    }

    /// Where a condition that was begun goes on.
    pub(super) fn statement(&mut self) -> &mut Statement {
        self.statement
    }

    /// The column is one of the values; no values do not bind.
    pub(super) fn one_of<V: Into<Value>>(&mut self, column: &str, values: impl IntoIterator<Item = V>) {
        let mut values = values.into_iter().peekable();
        if values.peek().is_some() {
            self.and().raw(column).raw(" IN (").list(values).raw(")");
        }
    }

    /// The column is one of the texts, however many; none do not bind.
    pub(super) fn one_of_texts<'t>(&mut self, column: &str, texts: impl IntoIterator<Item = &'t str>) {
        let mut texts = texts.into_iter().peekable();
        if texts.peek().is_some() {
            self.and().raw(column).raw(" IN ").text_set(texts);
        }
    }

    pub(super) fn equals(&mut self, column: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.and().raw(column).raw(" = ").bind(value);
        }
    }

    pub(super) fn within(&mut self, column: &str, range: &TimeRange) {
        let bounds = [(" >= ", range.gte), (" > ", range.gt), (" <= ", range.lte), (" < ", range.lt)];
        for (operator, bound) in bounds {
            if let Some(bound) = bound {
                self.and().raw(column).raw(operator).bind(bound);
            }
        }
    }
}

/// The `ORDER BY` of a page: its sort, then the row's identity.
pub(super) fn order_of<S: Copy>(
    page: &Page<S>,
    column: impl Fn(S) -> &'static str,
    identity: &str,
) -> String {
    let mut order = String::new();
    for &(sort, direction) in &page.sort {
        let direction = match direction {
            Direction::Ascending => "ASC",
            Direction::Descending => "DESC",
        };
        // Writing to a String cannot fail.
        let _ = write!(order, "{} {direction} NULLS LAST, ", column(sort));
    }
    order.push_str(identity);
    order
}

/// The assignments of an `UPDATE`, with commas between.
pub(super) struct Assignments<'s> {
    statement: &'s mut Statement,
}

impl<'s> Assignments<'s> {
    /// Begins with what every write of the row does.
    pub(super) fn new(statement: &'s mut Statement) -> Self {
        statement.add("change_seq = change_seq + 1, updated_at = {now}", []);
        Self { statement }
    }

    /// Sets a column to a value, if there is one.
    pub(super) fn set(&mut self, column: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.statement.raw(", ").raw(column).raw(" = ").bind(value);
        }
    }

    /// Adds an assignment as it is written.
    pub(super) fn raw(&mut self, assignment: &str) {
        self.statement.raw(", ").raw(assignment);
    }
}
