use async_trait::async_trait;
use gust_model::{
    ConnectionId, VariableKey,
    record::{ConnectionRecord, VariableRecord},
};

use super::{listing, table::key, transaction::Transaction};
use crate::metastore::{Listing, MetastoreError, SecretRows};

#[async_trait]
impl SecretRows for Transaction {
    async fn variable(&mut self, key: &VariableKey) -> Result<Option<VariableRecord>, MetastoreError> {
        self.statement("variable").await?;
        Ok(self.read(|view| view.get(&key![key.as_str()]).cloned()))
    }

    async fn variables(
        &mut self,
        prefix: &str,
        limit: u32,
        offset: u32,
    ) -> Result<Listing<VariableRecord>, MetastoreError> {
        self.statement("variables").await?;
        Ok(self.read(|view| {
            let rows = view.rows::<VariableRecord>().filter(|row| row.key.as_str().starts_with(prefix));
            listing::slice(rows.cloned().collect(), limit, offset)
        }))
    }

    async fn put_variable(&mut self, variable: &VariableRecord) -> Result<(), MetastoreError> {
        self.statement("put_variable").await?;
        self.upsert(variable.clone()).await
    }

    async fn delete_variable(&mut self, key: &VariableKey) -> Result<bool, MetastoreError> {
        self.statement("delete_variable").await?;
        Ok(!self.delete::<VariableRecord>(vec![key![key.as_str()]]).await?.is_empty())
    }

    async fn connection(
        &mut self,
        conn_id: &ConnectionId,
    ) -> Result<Option<ConnectionRecord>, MetastoreError> {
        self.statement("connection").await?;
        Ok(self.read(|view| view.get(&key![conn_id.as_str()]).cloned()))
    }

    async fn connections(
        &mut self,
        contains: &str,
        limit: u32,
        offset: u32,
    ) -> Result<Listing<ConnectionRecord>, MetastoreError> {
        self.statement("connections").await?;
        Ok(self.read(|view| {
            let rows = view.rows::<ConnectionRecord>().filter(|row| row.conn_id.as_str().contains(contains));
            listing::slice(rows.cloned().collect(), limit, offset)
        }))
    }

    async fn put_connection(&mut self, connection: &ConnectionRecord) -> Result<(), MetastoreError> {
        self.statement("put_connection").await?;
        self.upsert(connection.clone()).await
    }

    async fn delete_connection(&mut self, conn_id: &ConnectionId) -> Result<bool, MetastoreError> {
        self.statement("delete_connection").await?;
        Ok(!self.delete::<ConnectionRecord>(vec![key![conn_id.as_str()]]).await?.is_empty())
    }
}
