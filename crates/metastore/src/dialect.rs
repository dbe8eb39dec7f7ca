//! Statements as text and values, and what little differs between SQLite and PostgreSQL.
//!
//! Both databases read `ON CONFLICT`, `RETURNING`, `UPDATE … FROM (VALUES …)` and `NULLS LAST`, so that one text, but
//! for its parameters and a few words, serves both.
//! The text of a statement depends only on its shape, never on its values, so that the databases' own caches of
//! prepared statements, keyed by text, are the statement cache.

use std::{borrow::Cow, fmt::Write as _, time::Duration};

use chrono::TimeDelta;
use gust_model::record::Timestamp;
use serde::Serialize;
use uuid::Uuid;

/// Which database speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

/// A value to be bound. Each knows its type even where it is null, which PostgreSQL wants.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Flag(bool),
    Int(Option<i64>),
    Float(Option<f64>),
    Text(Option<String>),
    Uuid(Option<Uuid>),
    Time(Option<Timestamp>),
    /// JSON as text.
    Json(Option<String>),
}

macro_rules! value_from {
    ($($from:ty => $variant:ident($x:ident) $expr:expr;)+) => {$(
        impl From<$from> for Value {
            fn from($x: $from) -> Self {
                Self::$variant($expr)
            }
        }
    )+};
}

value_from! {
    bool => Flag(x) x;
    i64 => Int(x) Some(x);
    i32 => Int(x) Some(i64::from(x));
    u32 => Int(x) Some(i64::from(x));
    Option<i32> => Int(x) x.map(i64::from);
    Option<u32> => Int(x) x.map(i64::from);
    f64 => Float(x) Some(x);
    Option<f64> => Float(x) x;
    &str => Text(x) Some(x.to_owned());
    &String => Text(x) Some(x.clone());
    String => Text(x) Some(x);
    Option<&str> => Text(x) x.map(str::to_owned);
    &Option<String> => Text(x) x.clone();
    Uuid => Uuid(x) Some(x);
    Option<Uuid> => Uuid(x) x;
    Timestamp => Time(x) Some(x);
    Option<Timestamp> => Time(x) x;
    &serde_json::Value => Json(x) Some(x.to_string());
    gust_model::Epoch => Int(x) Some(x.0);
    gust_model::MapIndex => Int(x) Some(i64::from(x.0));
    gust_model::TaskInstanceState => Text(x) Some(x.as_str().to_owned());
    gust_model::DagRunState => Text(x) Some(x.as_str().to_owned());
    gust_model::DagRunType => Text(x) Some(x.as_str().to_owned());
    Option<gust_model::TriggeredBy> => Text(x) x.map(|by| by.as_str().to_owned());
}

macro_rules! value_from_ids {
    (text: $($text:ident),+; row: $($row:ident),+) => {
        $(
            impl From<&gust_model::$text> for Value {
                fn from(id: &gust_model::$text) -> Self {
                    Self::Text(Some(id.as_str().to_owned()))
                }
            }
            impl From<&Option<gust_model::$text>> for Value {
                fn from(id: &Option<gust_model::$text>) -> Self {
                    Self::Text(id.as_ref().map(|id| id.as_str().to_owned()))
                }
            }
        )+
        $(
            impl From<gust_model::$row> for Value {
                fn from(id: gust_model::$row) -> Self {
                    Self::Uuid(Some(id.0))
                }
            }
            impl From<Option<gust_model::$row>> for Value {
                fn from(id: Option<gust_model::$row>) -> Self {
                    Self::Uuid(id.map(|id| id.0))
                }
            }
        )+
    };
}

value_from_ids! {
    text: DagId, RunId, TaskId, PoolName, QueueName, BundleName, BundleVersion, VariableKey, ConnectionId;
    row: DagRunId, TaskInstanceId, DagVersionId, AttemptId, TriggerId, CallbackId, AssetId, EventId, BackfillId
}

/// A plain record as JSON. Records of this crate's callers are maps with text keys, which always have a JSON form;
/// should one not, null says so and reading it back names the column.
pub(crate) fn json_of<T: Serialize>(value: &T) -> Value {
    Value::Json(Some(serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())))
}

/// A word out of a closed set, as serde spells it.
pub(crate) fn word_of<T: Serialize>(value: &T) -> Value {
    let word = serde_json::to_value(value).ok().and_then(|word| word.as_str().map(str::to_owned));
    Value::Text(word)
}

/// A statement being written.
#[derive(Debug)]
pub(crate) struct Statement {
    dialect: Dialect,
    now: Timestamp,
    text: Cow<'static, str>,
    values: Vec<Value>,
}

/// Lists the values of a statement's fragment, in the order of its `?`.
macro_rules! values {
    ($($value:expr),* $(,)?) => { [$($crate::dialect::Value::from($value)),*] };
}
pub(crate) use values;

impl Statement {
    /// An empty statement. `now` is the clock that stands for the database's on SQLite, which has none of its own.
    pub(crate) fn new(dialect: Dialect, now: Timestamp) -> Self {
        Self { dialect, now, text: Cow::Borrowed(""), values: Vec::new() }
    }

    pub(crate) fn into_parts(self) -> (Cow<'static, str>, Vec<Value>) {
        (self.text, self.values)
    }

    /// Adds text as it is.
    pub(crate) fn raw(&mut self, text: &str) -> &mut Self {
        self.text.to_mut().push_str(text);
        self
    }

    /// Adds text whose `?` stand for `values`, `{now}` for the database's clock, `{now_once}` for the same where an
    /// index is searched by it, and `{lock}` for a row lock and `{skip_locked}` for `SKIP LOCKED` where the
    /// database has them.
    pub(crate) fn add<const N: usize>(&mut self, text: &str, values: [Value; N]) -> &mut Self {
        let mut values = values.into_iter();
        let mut rest = text;
        while let Some(at) = rest.find(['?', '{']) {
            self.raw(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix('?') {
                let value = values.next();
                debug_assert!(value.is_some(), "a value for each ? of {text}");
                self.bind(value.unwrap_or(Value::Text(None)));
                rest = after;
            } else if let Some(after) = rest.strip_prefix("{now}") {
                self.now();
                rest = after;
            } else if let Some(after) = rest.strip_prefix("{now_once}") {
                self.now_once();
                rest = after;
            } else if let Some(after) = rest.strip_prefix("{lock}") {
                // FOR UPDATE would also stop those who only refer to the row: a worker that leaves an XCom of a run
                // must not wait for the pass that holds the run.
                self.lock("FOR NO KEY UPDATE");
                rest = after;
            } else if let Some(after) = rest.strip_prefix("{skip_locked}") {
                self.lock("SKIP LOCKED");
                rest = after;
            } else {
                self.raw("{");
                rest = &rest[1..];
            }
        }
        debug_assert!(values.next().is_none(), "a ? for each value of {text}");
        self.raw(rest)
    }

    /// Binds one value here.
    pub(crate) fn bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.values.push(value.into());
        match self.dialect {
            // SQLite takes a numbered parameter for a named one and looks for its name among all others, which makes
            // a batch of thousands of values slow.
            Dialect::Sqlite => self.raw("?"),
            Dialect::Postgres => {
                // Writing to a String cannot fail.
                let _ = write!(self.text.to_mut(), "${}", self.values.len());
                self
            }
        }
    }

    /// Binds the values of an `IN` list here; of none, `NULL`, which nothing equals. The last one is repeated until
    /// their number is a power of two, which leaves the meaning and keeps the statement's shapes few.
    pub(crate) fn list<V: Into<Value>>(&mut self, values: impl IntoIterator<Item = V>) -> &mut Self {
        let mut values: Vec<Value> = values.into_iter().map(Into::into).collect();
        let Some(last) = values.last().cloned() else { return self.raw("NULL") };
        values.resize(values.len().next_power_of_two(), last);
        for (i, value) in values.into_iter().enumerate() {
            self.raw(if i == 0 { "" } else { ", " });
            self.bind(value);
        }
        self
    }

    /// Binds the pairs of an `IN` list, at least one, as [`Statement::list`] does: `(a, b) IN (` this `)`.
    pub(crate) fn pairs(&mut self, pairs: impl IntoIterator<Item = [Value; 2]>) -> &mut Self {
        let mut pairs: Vec<[Value; 2]> = pairs.into_iter().collect();
        let Some(last) = pairs.last().cloned() else { return self.raw("SELECT NULL, NULL") };
        pairs.resize(pairs.len().next_power_of_two(), last);
        for (i, pair) in pairs.into_iter().enumerate() {
            self.raw(if i == 0 { "VALUES " } else { ", " });
            self.add("(?, ?)", pair);
        }
        self
    }

    /// A list of texts of any length as one parameter: `column IN` this.
    pub(crate) fn text_set<'t>(&mut self, texts: impl IntoIterator<Item = &'t str>) -> &mut Self {
        let texts: Vec<&str> = texts.into_iter().collect();
        match self.dialect {
            Dialect::Sqlite => self.raw("(SELECT value FROM json_each("),
            Dialect::Postgres => self.raw("(SELECT json_array_elements_text("),
        };
        self.bind(json_of(&texts)).raw("))")
    }

    /// The database's clock now.
    pub(crate) fn now(&mut self) -> &mut Self {
        match self.dialect {
            Dialect::Sqlite => {
                let now = self.now;
                self.bind(now)
            }
            Dialect::Postgres => self.raw("clock_timestamp()"),
        }
    }

    /// The database's clock, read once for the whole statement, so that an index can be searched by it.
    fn now_once(&mut self) -> &mut Self {
        match self.dialect {
            Dialect::Sqlite => self.now(),
            Dialect::Postgres => self.raw("(SELECT clock_timestamp())"),
        }
    }

    /// The database's clock, so much later.
    pub(crate) fn now_plus(&mut self, duration: Duration) -> &mut Self {
        self.now_shifted(TimeDelta::from_std(duration).unwrap_or(FOREVER).min(FOREVER))
    }

    /// The database's clock, so much earlier, read once for the whole statement.
    pub(crate) fn now_minus_once(&mut self, duration: Duration) -> &mut Self {
        self.raw("(SELECT ");
        self.now_shifted(-TimeDelta::from_std(duration).unwrap_or(FOREVER).min(FOREVER)).raw(")")
    }

    fn now_shifted(&mut self, delta: TimeDelta) -> &mut Self {
        match self.dialect {
            Dialect::Sqlite => {
                let then = self.now + delta;
                self.bind(then)
            }
            Dialect::Postgres => {
                let microseconds = delta.num_microseconds().unwrap_or(0);
                self.raw("(clock_timestamp() + ").bind(microseconds).raw(" * interval '1 microsecond')")
            }
        }
    }

    /// Adds a locking clause where the database has it; SQLite's one writer needs none.
    fn lock(&mut self, clause: &str) -> &mut Self {
        match self.dialect {
            Dialect::Sqlite => self,
            Dialect::Postgres => self.raw(clause),
        }
    }

    /// Whether `column` holds `text`, in the case given: an expression.
    pub(crate) fn holds(&mut self, column: &str, text: &str) -> &mut Self {
        let function = match self.dialect {
            Dialect::Sqlite => "instr(",
            Dialect::Postgres => "strpos(",
        };
        self.raw(function).raw(column).raw(", ").bind(text).raw(") > 0")
    }

    /// Whether `column` holds `text` in any case of the letters a–z.
    pub(crate) fn holds_in_any_case(&mut self, column: &str, text: &str) -> &mut Self {
        let lowered = text.to_ascii_lowercase();
        self.holds(&format!("lower({column})"), &lowered)
    }
}

/// Far enough to stand for never, near enough that adding it to a clock stays a date.
const FOREVER: TimeDelta = TimeDelta::days(365_000);

/// Splits rows so that only few shapes of a batch statement exist: at most seven, each prepared once.
pub(crate) fn batches<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        if rows.is_empty() {
            return None;
        }
        let size = (1 << rows.len().ilog2()).min(MAX_BATCH);
        let (batch, rest) = rows.split_at(size);
        rows = rest;
        Some(batch)
    })
}

/// Rows of one batch. The widest table has 43 columns, and SQLite takes 32 766 values.
const MAX_BATCH: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(dialect: Dialect) -> Statement {
        Statement::new(dialect, chrono::DateTime::UNIX_EPOCH)
    }

    #[test]
    fn every_parameter_has_its_value_and_sqlite_binds_its_clock() {
        let mut statement = statement(Dialect::Sqlite);
        statement
            .add("SELECT a FROM b WHERE c = ? AND d < {now} ", values![1_i64])
            .add("LIMIT ? {lock}", values![2_u32]);
        let (text, values) = statement.into_parts();
        assert_eq!(text, "SELECT a FROM b WHERE c = ? AND d < ? LIMIT ? ");
        assert_eq!(values.len(), 3);
    }

    #[test]
    fn postgres_reads_its_own_clock_and_locks() {
        let mut statement = statement(Dialect::Postgres);
        statement.add("SELECT 1 WHERE {now} < ? ", values![true]).add("{lock} {skip_locked}", []);
        statement.add(" ?", values![2_i64]);
        assert_eq!(
            statement.into_parts().0,
            "SELECT 1 WHERE clock_timestamp() < $1 FOR NO KEY UPDATE SKIP LOCKED $2"
        );
    }

    #[test]
    fn a_never_ending_lease_is_a_date() {
        let mut statement = statement(Dialect::Sqlite);
        statement.now_plus(Duration::MAX);
        assert_eq!(statement.into_parts().1.len(), 1);
    }

    #[test]
    fn batches_have_few_shapes_and_lose_nothing() {
        let rows: Vec<u32> = (0..203).collect();
        let sizes: Vec<usize> = batches(&rows).map(<[u32]>::len).collect();
        assert_eq!(sizes, [64, 64, 64, 8, 2, 1]);
        assert_eq!(batches(&rows).flatten().copied().collect::<Vec<_>>(), rows);
    }
}
