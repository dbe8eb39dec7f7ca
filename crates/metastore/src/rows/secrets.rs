use async_trait::async_trait;
use gust_model::{
    ConnectionId, VariableKey,
    record::{ConnectionRecord, VariableRecord},
};
use gust_ports::{
    MetastoreError,
    metastore::{Listing, SecretRows},
};

use super::{did_change, page_of};
use crate::{
    connection::{Row, SqlTx},
    dialect::{Statement, values},
};

const VARIABLE: &str = "key, sealed_value, description";
const CONNECTION: &str =
    "conn_id, conn_type, description, host, schema_name, login, sealed_password, port, sealed_extra";

fn read_variable(row: &Row) -> Result<VariableRecord, MetastoreError> {
    let r = row.of("variable");
    Ok(VariableRecord {
        key: r.text("key")?,
        sealed_value: r.text("sealed_value")?,
        description: r.text_or_null("description")?,
    })
}

fn read_connection(row: &Row) -> Result<ConnectionRecord, MetastoreError> {
    let r = row.of("connection");
    Ok(ConnectionRecord {
        conn_id: r.text("conn_id")?,
        conn_type: r.text("conn_type")?,
        description: r.text_or_null("description")?,
        host: r.text_or_null("host")?,
        schema: r.text_or_null("schema_name")?,
        login: r.text_or_null("login")?,
        sealed_password: r.text_or_null("sealed_password")?,
        port: r.small_or_null("port")?,
        sealed_extra: r.text_or_null("sealed_extra")?,
    })
}

#[async_trait]
impl SecretRows for SqlTx {
    async fn variable(&mut self, key: &VariableKey) -> Result<Option<VariableRecord>, MetastoreError> {
        let mut statement = self.statement();
        statement.raw("SELECT ").raw(VARIABLE).add(" FROM variable WHERE key = ?", values![key]);
        self.first(statement).await?.map(|row| read_variable(&row)).transpose()
    }

    async fn variables(
        &mut self,
        prefix: &str,
        limit: u32,
        offset: u32,
    ) -> Result<Listing<VariableRecord>, MetastoreError> {
        let matching = |statement: &mut Statement| {
            statement.raw("FROM variable");
            if !prefix.is_empty() {
                statement.add(" WHERE substr(key, 1, length(?)) = ?", values![prefix, prefix]);
            }
        };
        page_of(self, VARIABLE, matching, "key", (limit, offset), read_variable).await
    }

    async fn put_variable(&mut self, variable: &VariableRecord) -> Result<(), MetastoreError> {
        let mut statement = self.statement();
        statement.add(
            "INSERT INTO variable (key, sealed_value, description) VALUES (?, ?, ?) ON CONFLICT (key) \
             DO UPDATE SET sealed_value = excluded.sealed_value, description = excluded.description",
            values![&variable.key, &variable.sealed_value, &variable.description],
        );
        self.run(statement).await.map(drop)
    }

    async fn delete_variable(&mut self, key: &VariableKey) -> Result<bool, MetastoreError> {
        let mut statement = self.statement();
        statement.add("DELETE FROM variable WHERE key = ?", values![key]);
        self.run(statement).await.map(did_change)
    }

    async fn connection(
        &mut self,
        conn_id: &ConnectionId,
    ) -> Result<Option<ConnectionRecord>, MetastoreError> {
        let mut statement = self.statement();
        statement.raw("SELECT ").raw(CONNECTION).add(" FROM connection WHERE conn_id = ?", values![conn_id]);
        self.first(statement).await?.map(|row| read_connection(&row)).transpose()
    }

    async fn connections(
        &mut self,
        contains: &str,
        limit: u32,
        offset: u32,
    ) -> Result<Listing<ConnectionRecord>, MetastoreError> {
        let matching = |statement: &mut Statement| {
            statement.raw("FROM connection");
            if !contains.is_empty() {
                statement.raw(" WHERE ").holds_in_any_case("conn_id", contains);
            }
        };
        page_of(self, CONNECTION, matching, "conn_id", (limit, offset), read_connection).await
    }

    async fn put_connection(&mut self, connection: &ConnectionRecord) -> Result<(), MetastoreError> {
        let mut statement = self.statement();
        statement.raw("INSERT INTO connection (").raw(CONNECTION).add(
            ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (conn_id) DO UPDATE SET \
             conn_type = excluded.conn_type, description = excluded.description, host = excluded.host, \
             schema_name = excluded.schema_name, login = excluded.login, \
             sealed_password = excluded.sealed_password, port = excluded.port, \
             sealed_extra = excluded.sealed_extra",
            values![
                &connection.conn_id,
                &connection.conn_type,
                &connection.description,
                &connection.host,
                &connection.schema,
                &connection.login,
                &connection.sealed_password,
                connection.port,
                &connection.sealed_extra,
            ],
        );
        self.run(statement).await.map(drop)
    }

    async fn delete_connection(&mut self, conn_id: &ConnectionId) -> Result<bool, MetastoreError> {
        let mut statement = self.statement();
        statement.add("DELETE FROM connection WHERE conn_id = ?", values![conn_id]);
        self.run(statement).await.map(did_change)
    }
}
