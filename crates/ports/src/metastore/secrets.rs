use async_trait::async_trait;
use gust_model::{
    ConnectionId, VariableKey,
    record::{ConnectionRecord, VariableRecord},
};

use super::{Listing, MetastoreError};

/// Variables and Connections, sealed; a [`crate::Cipher`] opens them for the one who asks.
#[async_trait]
pub trait SecretRows: Send {
    /// A Variable.
    async fn variable(&mut self, key: &VariableKey) -> Result<Option<VariableRecord>, MetastoreError>;

    /// Variables by key, those whose key starts with `prefix`.
    async fn variables(
        &mut self,
        prefix: &str,
        limit: u32,
        offset: u32,
    ) -> Result<Listing<VariableRecord>, MetastoreError>;

    /// Writes a Variable, new or not.
    async fn put_variable(&mut self, variable: &VariableRecord) -> Result<(), MetastoreError>;

    /// Removes a Variable.
    async fn delete_variable(&mut self, key: &VariableKey) -> Result<bool, MetastoreError>;

    /// A Connection.
    async fn connection(
        &mut self,
        conn_id: &ConnectionId,
    ) -> Result<Option<ConnectionRecord>, MetastoreError>;

    /// Connections by id, those whose id holds `contains`.
    async fn connections(
        &mut self,
        contains: &str,
        limit: u32,
        offset: u32,
    ) -> Result<Listing<ConnectionRecord>, MetastoreError>;

    /// Writes a Connection, new or not.
    async fn put_connection(&mut self, connection: &ConnectionRecord) -> Result<(), MetastoreError>;

    /// Removes a Connection.
    async fn delete_connection(&mut self, conn_id: &ConnectionId) -> Result<bool, MetastoreError>;
}
