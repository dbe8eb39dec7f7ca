//! What the databases say, in the port's words.

use gust_ports::MetastoreError;
use sqlx::error::{DatabaseError, ErrorKind};

use crate::dialect::Dialect;

/// Translates a driver's error. Statements name the table in `doing`, for the message.
pub(crate) fn translate(dialect: Dialect, error: sqlx::Error) -> MetastoreError {
    match error {
        sqlx::Error::Database(error) => from_database(dialect, &*error),
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Protocol(_) => MetastoreError::Unavailable(error.to_string()),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
            MetastoreError::Unreadable(error.to_string())
        }
        other => MetastoreError::Refused(other.to_string()),
    }
}

fn from_database(dialect: Dialect, error: &dyn DatabaseError) -> MetastoreError {
    let code = error.code().unwrap_or_default();
    let message = || error.message().to_owned();
    if error.kind() == ErrorKind::UniqueViolation {
        return MetastoreError::Exists(unique_subject(error));
    }
    let is_conflict = match dialect {
        Dialect::Sqlite => matches!(primary_code(&code), SQLITE_BUSY | SQLITE_LOCKED),
        Dialect::Postgres => matches!(&*code, "40001" | "40P01" | "55P03"),
    };
    if is_conflict {
        return MetastoreError::Conflict(message());
    }
    let is_outage = match dialect {
        Dialect::Sqlite => matches!(
            primary_code(&code),
            SQLITE_READONLY | SQLITE_IOERR | SQLITE_FULL | SQLITE_CANTOPEN | SQLITE_NOMEM
        ),
        // Connection exceptions, lack of resources (disk full, too many connections), operator intervention (admin
        // shutdown, starting up, cancelled statements), failures of its own files, and a standby's refusal to write.
        Dialect::Postgres => matches!(code.get(..2), Some("08" | "53" | "57" | "58")) || code == "25006",
    };
    if is_outage {
        return MetastoreError::Unavailable(message());
    }
    MetastoreError::Refused(message())
}

/// Whether the database said that the transaction, or the connection, is for reading only.
pub(crate) fn is_write_refused(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    code.is_some_and(|code| code == "25006" || primary_code(&code) == SQLITE_READONLY)
}

/// What exists already: PostgreSQL names the constraint, SQLite the columns.
fn unique_subject(error: &dyn DatabaseError) -> String {
    let subject = match error.constraint() {
        Some(constraint) => constraint,
        None => error.message().rsplit(": ").next().unwrap_or_default(),
    };
    format!("a row with the same key ({subject})")
}

/// SQLite's extended result codes keep the primary one in their low byte.
fn primary_code(code: &str) -> i32 {
    code.parse::<i32>().map_or(0, |code| code & 0xff)
}

const SQLITE_BUSY: i32 = 5;
const SQLITE_LOCKED: i32 = 6;
const SQLITE_NOMEM: i32 = 7;
const SQLITE_READONLY: i32 = 8;
const SQLITE_IOERR: i32 = 10;
const SQLITE_FULL: i32 = 13;
const SQLITE_CANTOPEN: i32 = 14;

/// Says which stored value is not what it must be.
pub(crate) fn unreadable(table: &str, column: &str, why: impl std::fmt::Display) -> MetastoreError {
    MetastoreError::Unreadable(format!("{table}.{column}: {why}"))
}
