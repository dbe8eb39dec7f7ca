use gust_model::{
    PoolName,
    record::{DEFAULT_POOL, Pool},
};
use gust_ports::{
    Tx, Wake,
    metastore::{TxMode, transact},
};

use crate::{OperationError, Ports};

/// New values for a pool; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolPatch {
    /// How many slots; −1 for no limit.
    pub slots: Option<i32>,
    /// What it is for.
    pub description: Option<Option<String>>,
    /// Whether deferred task instances keep their slots.
    pub include_deferred: Option<bool>,
}

fn check(pool: &Pool) -> Result<(), OperationError> {
    let name = pool.name.as_str();
    if name.is_empty() || name.chars().count() > 256 {
        return Err(OperationError::Refused("a pool's name has 1 to 256 characters".into()));
    }
    if pool.slots < -1 {
        return Err(OperationError::Refused("a pool has -1 (no limit), 0 or more slots".into()));
    }
    Ok(())
}

async fn find(tx: &mut dyn Tx, name: &PoolName) -> Result<Option<Pool>, OperationError> {
    Ok(tx.pools().await?.into_iter().find(|pool| pool.name == *name))
}

/// Adds a pool.
///
/// # Errors
/// [`OperationError::Exists`] if there is one of its name.
pub async fn create_pool(ports: Ports<'_>, pool: Pool) -> Result<(), OperationError> {
    check(&pool)?;
    transact(ports.metastore, TxMode::Write, move |tx| {
        let pool = pool.clone();
        Box::pin(async move {
            if find(tx, &pool.name).await?.is_some() {
                return Err(OperationError::Exists(format!("a pool named `{}` already exists", pool.name)));
            }
            Ok(tx.put_pool(&pool).await?)
        })
    })
    .await?;
    ports.wake_all(vec![Wake::Admission]).await;
    Ok(())
}

/// Changes a pool.
///
/// # Errors
/// [`OperationError::PoolNotFound`].
pub async fn update_pool(ports: Ports<'_>, name: PoolName, patch: PoolPatch) -> Result<Pool, OperationError> {
    let pool = transact(ports.metastore, TxMode::Write, move |tx| {
        let (name, patch) = (name.clone(), patch.clone());
        Box::pin(async move {
            let mut pool =
                find(tx, &name).await?.ok_or_else(|| OperationError::PoolNotFound(name.to_string()))?;
            pool.slots = patch.slots.unwrap_or(pool.slots);
            pool.include_deferred = patch.include_deferred.unwrap_or(pool.include_deferred);
            if let Some(description) = patch.description {
                pool.description = description;
            }
            check(&pool)?;
            tx.put_pool(&pool).await?;
            Ok::<_, OperationError>(pool)
        })
    })
    .await?;
    ports.wake_all(vec![Wake::Admission]).await;
    Ok(pool)
}

/// Removes a pool. The one of tasks that name none stays.
///
/// # Errors
/// [`OperationError::Refused`] for the default pool, [`OperationError::PoolNotFound`].
pub async fn delete_pool(ports: Ports<'_>, name: PoolName) -> Result<(), OperationError> {
    if name.as_str() == DEFAULT_POOL {
        return Err(OperationError::Refused("Default Pool can't be deleted".into()));
    }
    transact(ports.metastore, TxMode::Write, move |tx| {
        let name = name.clone();
        Box::pin(async move {
            if tx.delete_pool(&name).await? {
                Ok(())
            } else {
                Err(OperationError::PoolNotFound(name.to_string()))
            }
        })
    })
    .await
}
