//! Variables and Connections. A secret is opened only for the one who asks for it, and its log is told to hide it.

use std::sync::Arc;

use gust_model::record::{ConnectionRecord, VariableRecord};
use gust_ports::{Cipher, Metastore, metastore::TxMode};
use gust_python_host::messages::{
    ConnectionResponse, DeleteVariable, ErrorType, FromTask, GetConnection, GetVariable, GetVariableKeys,
    PutVariable, Reply, ToTask, VariableKeysResult, VariableResponse,
};
use serde_json::{Value, json};

use super::ok;
use crate::{error::WorkerError, redact::Secrets};

/// Serves Variables and Connections.
pub(crate) struct SecretDesk {
    metastore: Arc<dyn Metastore>,
    cipher: Arc<dyn Cipher>,
    secrets: Arc<Secrets>,
}

impl SecretDesk {
    pub(crate) fn new(metastore: Arc<dyn Metastore>, cipher: Arc<dyn Cipher>, secrets: Arc<Secrets>) -> Self {
        Self { metastore, cipher, secrets }
    }

    /// The answer, if the request is about a Variable or a Connection.
    pub(crate) async fn answer(&self, body: &FromTask) -> Result<Option<Reply>, WorkerError> {
        Ok(Some(match body {
            FromTask::GetVariable(m) => self.get_variable(m).await?,
            FromTask::GetVariableKeys(m) => self.variable_keys(m).await?,
            FromTask::PutVariable(m) => self.put_variable(m).await?,
            FromTask::DeleteVariable(m) => self.delete_variable(m).await?,
            FromTask::GetConnection(m) => self.get_connection(m).await?,
            _ => return Ok(None),
        }))
    }

    async fn get_variable(&self, m: &GetVariable) -> Result<Reply, WorkerError> {
        let mut tx = self.metastore.begin(TxMode::Read).await?;
        let Some(record) = tx.variable(&m.key.as_str().into()).await? else {
            return Ok(Reply::not_found(ErrorType::VariableNotFound, json!({"key": m.key})));
        };
        drop(tx);
        let value = self.cipher.open(&variable_place(&m.key), &record.sealed_value)?;
        self.secrets.add(&Value::from(value.as_str()), Some(&m.key));
        Ok(ToTask::VariableResult(VariableResponse { key: m.key.clone(), value: Some(value) }).into())
    }

    async fn variable_keys(&self, m: &GetVariableKeys) -> Result<Reply, WorkerError> {
        let mut tx = self.metastore.begin(TxMode::Read).await?;
        let limit = u32::try_from(m.limit.clamp(1, 10_000)).unwrap_or(1000);
        let offset = u32::try_from(m.offset.max(0)).unwrap_or(u32::MAX);
        let found = tx.variables(m.prefix.as_deref().unwrap_or_default(), limit, offset).await?;
        let keys = found.items.into_iter().map(|record| record.key.to_string()).collect();
        let total_entries = i64::try_from(found.total).unwrap_or(i64::MAX);
        Ok(ToTask::VariableKeysResult(VariableKeysResult { keys, total_entries }).into())
    }

    async fn put_variable(&self, m: &PutVariable) -> Result<Reply, WorkerError> {
        let plain = m.value.as_deref().unwrap_or("None");
        self.secrets.add(&Value::from(plain), Some(&m.key));
        let sealed_value = self.cipher.seal(&variable_place(&m.key), plain)?;
        let record =
            VariableRecord { key: m.key.as_str().into(), sealed_value, description: m.description.clone() };
        let mut tx = self.metastore.begin(TxMode::Write).await?;
        tx.put_variable(&record).await?;
        tx.commit().await?;
        Ok(Reply::Empty)
    }

    async fn delete_variable(&self, m: &DeleteVariable) -> Result<Reply, WorkerError> {
        let mut tx = self.metastore.begin(TxMode::Write).await?;
        tx.delete_variable(&m.key.as_str().into()).await?;
        tx.commit().await?;
        Ok(ok())
    }

    async fn get_connection(&self, m: &GetConnection) -> Result<Reply, WorkerError> {
        let mut tx = self.metastore.begin(TxMode::Read).await?;
        let Some(record) = tx.connection(&m.conn_id.as_str().into()).await? else {
            return Ok(Reply::not_found(ErrorType::ConnectionNotFound, json!({"conn_id": m.conn_id})));
        };
        drop(tx);
        Ok(ToTask::ConnectionResult(self.open_connection(record)?).into())
    }

    fn open_connection(&self, record: ConnectionRecord) -> Result<ConnectionResponse, WorkerError> {
        let id = &record.conn_id;
        let open = |part: &str, sealed: Option<String>| {
            let place = format!("connection/{id}/{part}");
            sealed.map(|sealed| self.cipher.open(&place, &sealed)).transpose()
        };
        let password = open("password", record.sealed_password)?;
        let extra = open("extra", record.sealed_extra)?;
        if let Some(password) = &password {
            self.secrets.add_text(password);
        }
        if let Some(extra) = &extra {
            self.secrets.add_text(extra);
            if let Ok(parsed @ Value::Object(_)) = serde_json::from_str::<Value>(extra) {
                self.secrets.add(&parsed, None);
            }
        }
        Ok(ConnectionResponse {
            conn_id: id.to_string(),
            conn_type: record.conn_type,
            host: record.host,
            schema: record.schema,
            login: record.login,
            password,
            port: record.port.map(i64::from),
            extra,
        })
    }
}

fn variable_place(key: &str) -> String {
    format!("variable/{key}/value")
}
