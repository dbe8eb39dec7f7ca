//! The row traits of the port, one file a trait, and what several of them share.

mod assets;
mod candidates;
mod claims;
mod filters;
mod registry;
mod runs;
mod secrets;
mod task_instance_columns;
mod task_instances;
mod work;
mod xcoms;

use gust_ports::{MetastoreError, metastore::Listing};

use crate::{
    connection::{Row, SqlTx},
    dialect::{Statement, values},
};

/// Reads every row with `read`.
fn read_all<T>(
    rows: &[Row],
    read: impl Fn(&Row) -> Result<T, MetastoreError>,
) -> Result<Vec<T>, MetastoreError> {
    rows.iter().map(read).collect()
}

/// Writes the names of columns with a table's alias before each: `ti.id, ti.state`.
fn prefixed(alias: &str, columns: &[&str]) -> String {
    let mut text = String::with_capacity(columns.len() * 20);
    for (i, column) in columns.iter().enumerate() {
        if i > 0 {
            text.push_str(", ");
        }
        text.push_str(alias);
        text.push('.');
        text.push_str(column);
    }
    text
}

/// A page of `columns` from what `matching` (`FROM … WHERE …`) selects, and how many match in all. `order` ends in
/// the row's identity.
async fn page_of<T>(
    tx: &mut SqlTx,
    columns: &str,
    matching: impl Fn(&mut Statement),
    order: &str,
    (limit, offset): (u32, u32),
    read: impl Fn(&Row) -> Result<T, MetastoreError>,
) -> Result<Listing<T>, MetastoreError> {
    let mut statement = tx.statement();
    statement.raw("SELECT ").raw(columns).raw(" ");
    matching(&mut statement);
    statement.raw(" ORDER BY ").raw(order).add(" LIMIT ? OFFSET ?", values![limit, offset]);
    let rows = tx.all(statement).await?;
    let items = read_all(&rows, read)?;
    // A page that is not full tells the total by itself.
    let shown = u32::try_from(items.len()).unwrap_or(u32::MAX);
    if shown < limit && (shown > 0 || offset == 0) {
        return Ok(Listing { total: u64::from(offset) + u64::from(shown), items });
    }
    let mut statement = tx.statement();
    statement.raw("SELECT count(*) AS total ");
    matching(&mut statement);
    let total = tx.one(statement).await?.of("count").small("total")?;
    Ok(Listing { items, total })
}

/// Whether a statement changed exactly what it named.
fn did_change(changed: u64) -> bool {
    changed > 0
}
