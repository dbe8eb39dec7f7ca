//! One transaction on either database: runs statements, hands out rows.

use std::{str::FromStr, sync::Arc};

use gust_model::record::{Lease, Timestamp};
use gust_ports::{Clock, MetastoreError, metastore::TxMode};
use serde::de::{IntoDeserializer as _, value::StrDeserializer};
use sqlx::{
    Arguments as _, AssertSqlSafe, Decode, Postgres, Row as _, Sqlite, Transaction, Type, TypeInfo as _,
    ValueRef as _,
    postgres::{PgArguments, PgRow, PgTypeInfo, types::Oid},
    sqlite::{SqliteArguments, SqliteRow},
};
use uuid::Uuid;

use crate::{
    dialect::{Dialect, Statement, Value},
    error::{is_write_refused, translate, unreadable},
};

/// The transaction underneath. Dropped without commit, it rolls back before its connection serves again.
pub(crate) enum Connection {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

/// A transaction of the metastore; the row traits are implemented on it.
pub(crate) struct SqlTx {
    connection: Connection,
    mode: TxMode,
    clock: Arc<dyn Clock>,
    /// Whether statements are prepared once a connection, or each time.
    is_caching: bool,
    /// Whether a statement failed. PostgreSQL then refuses all others and answers a commit as if nothing were wrong;
    /// SQLite would go on. Both end here the same way.
    is_broken: bool,
    /// The texts of the statements and the types of their parameters, for tests that look at their plans.
    #[cfg(test)]
    texts: Option<std::collections::BTreeMap<String, Vec<&'static str>>>,
}

impl SqlTx {
    pub(crate) fn new(connection: Connection, mode: TxMode, clock: Arc<dyn Clock>, is_caching: bool) -> Self {
        Self {
            connection,
            mode,
            clock,
            is_caching,
            is_broken: false,
            #[cfg(test)]
            texts: None,
        }
    }

    pub(crate) fn dialect(&self) -> Dialect {
        match self.connection {
            Connection::Sqlite(_) => Dialect::Sqlite,
            Connection::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Begins a statement.
    pub(crate) fn statement(&self) -> Statement {
        Statement::new(self.dialect(), self.clock.now())
    }

    /// The database's clock: PostgreSQL's own, or that of the process, which is SQLite's.
    pub(crate) async fn clock_now(&mut self) -> Result<Timestamp, MetastoreError> {
        match self.dialect() {
            Dialect::Sqlite => Ok(self.clock.now()),
            Dialect::Postgres => {
                let mut statement = self.statement();
                statement.raw("SELECT clock_timestamp() AS now");
                self.one(statement).await?.of("clock").time("now")
            }
        }
    }

    /// All rows.
    pub(crate) async fn all(&mut self, statement: Statement) -> Result<Vec<Row>, MetastoreError> {
        let dialect = self.dialect();
        self.ensure_whole()?;
        let (text, values) = statement.into_parts();
        #[cfg(test)]
        self.note_text(&text, &values);
        let text = AssertSqlSafe(text.into_owned());
        let done = match &mut self.connection {
            Connection::Sqlite(tx) => sqlx::query_with(text, sqlite_arguments(dialect, values)?)
                .persistent(self.is_caching)
                .fetch_all(&mut **tx)
                .await
                .map(|rows| rows.into_iter().map(Row::Sqlite).collect()),
            Connection::Postgres(tx) => sqlx::query_with(text, postgres_arguments(dialect, values)?)
                .persistent(self.is_caching)
                .fetch_all(&mut **tx)
                .await
                .map(|rows| rows.into_iter().map(Row::Postgres).collect()),
        };
        done.map_err(|error| self.broken_by(error))
    }

    /// The first row, if any.
    pub(crate) async fn first(&mut self, statement: Statement) -> Result<Option<Row>, MetastoreError> {
        Ok(self.all(statement).await?.into_iter().next())
    }

    /// The one row that an aggregate always gives.
    pub(crate) async fn one(&mut self, statement: Statement) -> Result<Row, MetastoreError> {
        let row = self.first(statement).await?;
        row.ok_or_else(|| MetastoreError::Refused("an aggregate gave no row".to_owned()))
    }

    /// Runs a statement that gives no rows; returns how many it changed.
    pub(crate) async fn run(&mut self, statement: Statement) -> Result<u64, MetastoreError> {
        let dialect = self.dialect();
        self.ensure_whole()?;
        let (text, values) = statement.into_parts();
        #[cfg(test)]
        self.note_text(&text, &values);
        let text = AssertSqlSafe(text.into_owned());
        let done = match &mut self.connection {
            Connection::Sqlite(tx) => sqlx::query_with(text, sqlite_arguments(dialect, values)?)
                .persistent(self.is_caching)
                .execute(&mut **tx)
                .await
                .map(|done| done.rows_affected()),
            Connection::Postgres(tx) => sqlx::query_with(text, postgres_arguments(dialect, values)?)
                .persistent(self.is_caching)
                .execute(&mut **tx)
                .await
                .map(|done| done.rows_affected()),
        };
        done.map_err(|error| self.broken_by(error))
    }

    #[cfg(test)]
    fn note_text(&mut self, text: &str, values: &[Value]) {
        let Some(texts) = &mut self.texts else { return };
        let types = values.iter().map(|value| match value {
            Value::Flag(_) => "boolean",
            Value::Int(_) => "bigint",
            Value::Float(_) => "double precision",
            Value::Text(_) => "text",
            Value::Uuid(_) => "uuid",
            Value::Time(_) => "timestamptz",
            Value::Json(_) => "json",
        });
        texts.insert(text.to_owned(), types.collect());
    }

    /// Keeps the texts of statements from here on.
    #[cfg(test)]
    pub(crate) fn record_texts(&mut self) {
        self.texts = Some(std::collections::BTreeMap::new());
    }

    /// The texts kept.
    #[cfg(test)]
    pub(crate) fn recorded_texts(&mut self) -> std::collections::BTreeMap<String, Vec<&'static str>> {
        self.texts.take().unwrap_or_default()
    }

    fn ensure_whole(&self) -> Result<(), MetastoreError> {
        if self.is_broken {
            return Err(MetastoreError::Refused("an earlier statement of the transaction failed".to_owned()));
        }
        Ok(())
    }

    fn broken_by(&mut self, error: sqlx::Error) -> MetastoreError {
        self.is_broken = true;
        if self.mode == TxMode::Read && is_write_refused(&error) {
            return MetastoreError::Refused("a transaction begun to read cannot write or lock".to_owned());
        }
        translate(self.dialect(), error)
    }

    pub(crate) async fn end(self, is_commit: bool) -> Result<(), MetastoreError> {
        let dialect = self.dialect();
        if is_commit {
            // Dropping the transaction underneath rolls back.
            self.ensure_whole()?;
        }
        match (self.connection, is_commit) {
            (Connection::Sqlite(tx), true) => tx.commit().await,
            (Connection::Sqlite(tx), false) => tx.rollback().await,
            (Connection::Postgres(tx), true) => tx.commit().await,
            (Connection::Postgres(tx), false) => tx.rollback().await,
        }
        .map_err(|error| translate(dialect, error))
    }
}

fn sqlite_arguments(dialect: Dialect, values: Vec<Value>) -> Result<SqliteArguments, MetastoreError> {
    let mut arguments = SqliteArguments::default();
    for value in values {
        match value {
            Value::Flag(flag) => arguments.add(flag),
            Value::Int(int) => arguments.add(int),
            Value::Float(float) => arguments.add(float),
            Value::Text(text) | Value::Json(text) => arguments.add(text),
            Value::Uuid(uuid) => arguments.add(uuid),
            Value::Time(time) => arguments.add(time.map(|time| time.timestamp_micros())),
        }
        .map_err(|error| translate(dialect, sqlx::Error::Encode(error)))?;
    }
    Ok(arguments)
}

fn postgres_arguments(dialect: Dialect, values: Vec<Value>) -> Result<PgArguments, MetastoreError> {
    let mut arguments = PgArguments::default();
    for value in values {
        match value {
            Value::Flag(flag) => arguments.add(flag),
            Value::Int(int) => arguments.add(int),
            Value::Float(float) => arguments.add(float),
            Value::Text(text) => arguments.add(text.map(without_nul)),
            Value::Json(text) => arguments.add(text.map(JsonText)),
            Value::Uuid(uuid) => arguments.add(uuid),
            Value::Time(time) => arguments.add(time),
        }
        .map_err(|error| translate(dialect, sqlx::Error::Encode(error)))?;
    }
    Ok(arguments)
}

/// PostgreSQL's texts cannot hold NUL, which a stack trace or a note may; the replacement character stands for it.
fn without_nul(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// JSON text bound as PostgreSQL's `json`, which keeps it as it is.
struct JsonText(String);

impl Type<Postgres> for JsonText {
    fn type_info() -> PgTypeInfo {
        // The fixed object id of the built-in type `json`.
        PgTypeInfo::with_oid(Oid(114))
    }
}

impl sqlx::Encode<'_, Postgres> for JsonText {
    fn encode_by_ref(
        &self,
        buffer: &mut sqlx::postgres::PgArgumentBuffer,
    ) -> Result<sqlx::encode::IsNull, sqlx::error::BoxDynError> {
        buffer.extend_from_slice(self.0.as_bytes());
        Ok(sqlx::encode::IsNull::No)
    }
}

/// A row of either database.
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    /// Reads the row as one of `table`, which errors name.
    pub(crate) fn of<'r>(&'r self, table: &'static str) -> Columns<'r> {
        Columns { row: self, table }
    }
}

/// Reads the columns of a row by name.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'r> {
    row: &'r Row,
    table: &'static str,
}

impl<'r> Columns<'r> {
    fn get<T>(self, column: &str) -> Result<Option<T>, MetastoreError>
    where
        T: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>,
    {
        match self.row {
            Row::Sqlite(row) => row.try_get::<Option<T>, _>(column),
            Row::Postgres(row) => row.try_get::<Option<T>, _>(column),
        }
        .map_err(|error| self.bad(column, error))
    }

    fn bad(self, column: &str, why: impl std::fmt::Display) -> MetastoreError {
        unreadable(self.table, column, why)
    }

    fn present<T>(self, column: &str, value: Option<T>) -> Result<T, MetastoreError> {
        value.ok_or_else(|| self.bad(column, "it is null"))
    }

    pub(crate) fn flag(self, column: &str) -> Result<bool, MetastoreError> {
        let flag = match self.row {
            Row::Sqlite(_) => self.get::<i64>(column)?.map(|flag| flag != 0),
            Row::Postgres(_) => self.get::<bool>(column)?,
        };
        self.present(column, flag)
    }

    pub(crate) fn int(self, column: &str) -> Result<i64, MetastoreError> {
        let int = self.get::<i64>(column)?;
        self.present(column, int)
    }

    /// An integer of a smaller type.
    pub(crate) fn small<T: TryFrom<i64>>(self, column: &str) -> Result<T, MetastoreError> {
        let int = self.small_or_null(column)?;
        self.present(column, int)
    }

    pub(crate) fn small_or_null<T: TryFrom<i64>>(self, column: &str) -> Result<Option<T>, MetastoreError> {
        let Some(int) = self.get::<i64>(column)? else { return Ok(None) };
        match T::try_from(int) {
            Ok(small) => Ok(Some(small)),
            Err(_) => Err(self.bad(column, format_args!("{int} is out of range"))),
        }
    }

    pub(crate) fn float(self, column: &str) -> Result<f64, MetastoreError> {
        let float = self.get::<f64>(column)?;
        self.present(column, float)
    }

    pub(crate) fn float_or_null(self, column: &str) -> Result<Option<f64>, MetastoreError> {
        self.get::<f64>(column)
    }

    /// A text, or an identifier made of one.
    pub(crate) fn text<T: for<'t> From<&'t str>>(self, column: &str) -> Result<T, MetastoreError> {
        let text = self.get::<&str>(column)?;
        self.present(column, text).map(T::from)
    }

    pub(crate) fn text_or_null<T: for<'t> From<&'t str>>(
        self,
        column: &str,
    ) -> Result<Option<T>, MetastoreError> {
        Ok(self.get::<&str>(column)?.map(T::from))
    }

    /// A name out of a closed set.
    pub(crate) fn name<T: FromStr<Err: std::fmt::Display>>(self, column: &str) -> Result<T, MetastoreError> {
        let name = self.name_or_null(column)?;
        self.present(column, name)
    }

    pub(crate) fn name_or_null<T: FromStr<Err: std::fmt::Display>>(
        self,
        column: &str,
    ) -> Result<Option<T>, MetastoreError> {
        let text = self.get::<&str>(column)?;
        text.map(|text| text.parse().map_err(|error| self.bad(column, error))).transpose()
    }

    /// A word out of a closed set that serde knows.
    pub(crate) fn word<T: serde::de::DeserializeOwned>(self, column: &str) -> Result<T, MetastoreError> {
        let text = self.get::<&str>(column)?;
        let text: StrDeserializer<'_, serde::de::value::Error> =
            self.present(column, text)?.into_deserializer();
        T::deserialize(text).map_err(|error| self.bad(column, error))
    }

    pub(crate) fn uuid(self, column: &str) -> Result<Uuid, MetastoreError> {
        let uuid = self.get::<Uuid>(column)?;
        self.present(column, uuid)
    }

    pub(crate) fn uuid_or_null(self, column: &str) -> Result<Option<Uuid>, MetastoreError> {
        self.get::<Uuid>(column)
    }

    pub(crate) fn time(self, column: &str) -> Result<Timestamp, MetastoreError> {
        let time = self.time_or_null(column)?;
        self.present(column, time)
    }

    pub(crate) fn time_or_null(self, column: &str) -> Result<Option<Timestamp>, MetastoreError> {
        match self.row {
            Row::Postgres(row) => {
                row.try_get::<Option<Timestamp>, _>(column).map_err(|error| self.bad(column, error))
            }
            Row::Sqlite(_) => {
                let Some(microseconds) = self.get::<i64>(column)? else { return Ok(None) };
                let time = Timestamp::from_timestamp_micros(microseconds);
                let time =
                    time.ok_or_else(|| self.bad(column, format_args!("{microseconds} µs is no date")))?;
                Ok(Some(time))
            }
        }
    }

    /// JSON into what it stands for.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(self, column: &str) -> Result<T, MetastoreError> {
        let value = self.json_or_null(column)?;
        self.present(column, value)
    }

    pub(crate) fn json_or_null<T: serde::de::DeserializeOwned>(
        self,
        column: &str,
    ) -> Result<Option<T>, MetastoreError> {
        let text = match self.row {
            Row::Sqlite(_) => self.get::<&str>(column)?,
            Row::Postgres(row) => self.postgres_json(row, column)?,
        };
        text.map(|text| serde_json::from_str(text).map_err(|error| self.bad(column, error))).transpose()
    }

    /// The text of a `json` column, which the driver gives as texts only when it is not asked to check the type.
    fn postgres_json(self, row: &'r PgRow, column: &str) -> Result<Option<&'r str>, MetastoreError> {
        let raw = row.try_get_raw(column).map_err(|error| self.bad(column, error))?;
        if raw.is_null() {
            return Ok(None);
        }
        if raw.type_info().name() != "JSON" {
            return Err(self.bad(column, format_args!("its type is {}, not JSON", raw.type_info().name())));
        }
        row.try_get_unchecked::<&str, _>(column).map(Some).map_err(|error| self.bad(column, error))
    }

    /// The claim in the two columns of a lease.
    pub(crate) fn lease(self) -> Result<Option<Lease>, MetastoreError> {
        let attempt_id = self.uuid_or_null("lease_attempt_id")?;
        let expires_at = self.time_or_null("lease_expires_at")?;
        match (attempt_id, expires_at) {
            (Some(attempt_id), Some(expires_at)) => {
                Ok(Some(Lease { attempt_id: gust_model::AttemptId(attempt_id), expires_at }))
            }
            (None, None) => Ok(None),
            _ => Err(self.bad("lease_attempt_id", "a lease needs both an attempt and an end")),
        }
    }
}
