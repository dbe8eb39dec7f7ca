use std::sync::Arc;

use async_trait::async_trait;
use gust_model::{
    BundleName, BundleVersion, DagId, DagVersionId,
    record::{DagRecord, DagVersion, ImportError, NextRun, Timestamp},
};

use super::{DagFilter, Listing, MetastoreError, Page};

/// What DAGs are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DagSort {
    /// The id.
    DagId,
    /// The name as shown.
    DisplayName,
    /// Paused or not.
    IsPaused,
    /// The next run's earliest start.
    NextRunAfter,
    /// The newest run's state.
    LastRunState,
    /// The newest run's start.
    LastRunStartDate,
}

/// DAGs, their versions and what could not be read of them.
#[async_trait]
pub trait RegistryRows: Send {
    /// A DAG.
    async fn dag(&mut self, dag_id: &DagId) -> Result<Option<DagRecord>, MetastoreError>;

    /// A DAG, its row locked until the transaction ends.
    async fn lock_dag(&mut self, dag_id: &DagId) -> Result<Option<DagRecord>, MetastoreError>;

    /// DAGs by filter.
    async fn dags(
        &mut self,
        filter: &DagFilter,
        page: &Page<DagSort>,
    ) -> Result<Listing<DagRecord>, MetastoreError>;

    /// Writes a DAG's row, new or not, all of it.
    async fn put_dag(&mut self, dag: &DagRecord) -> Result<(), MetastoreError>;

    /// Pauses or unpauses; false if there is no such DAG.
    async fn set_dag_paused(&mut self, dag_id: &DagId, is_paused: bool) -> Result<bool, MetastoreError>;

    /// Sets the run that the timetable makes next.
    async fn set_next_run(
        &mut self,
        dag_id: &DagId,
        next_run: Option<&NextRun>,
    ) -> Result<(), MetastoreError>;

    /// Marks the DAGs of a bundle, or of one file of it, stale or not, except those named. Returns those changed.
    async fn mark_dags_stale(
        &mut self,
        bundle_name: &BundleName,
        relative_fileloc: Option<&str>,
        except: &[DagId],
    ) -> Result<Vec<DagId>, MetastoreError>;

    /// Locks and returns DAGs whose next run is due at `now` and may be made: neither paused nor stale, without import
    /// errors, and with fewer runs queued or running (backfills apart) than they may have, so that those that have to
    /// wait hide nobody behind them. Skips those that another scheduler has locked; the longest due first.
    async fn lock_due_dags(&mut self, now: Timestamp, limit: u32) -> Result<Vec<DagRecord>, MetastoreError>;

    /// The earliest moment later than `now` at which the next run of a DAG, neither paused nor stale, is due.
    async fn next_due_dag_at(&mut self, now: Timestamp) -> Result<Option<Timestamp>, MetastoreError>;

    /// Removes a DAG's row and all that hangs on it: versions, runs, task instances, XComs, asset references.
    async fn delete_dag(&mut self, dag_id: &DagId) -> Result<bool, MetastoreError>;

    /// A version.
    async fn dag_version(&mut self, id: DagVersionId) -> Result<Option<DagVersion>, MetastoreError>;

    /// All versions of a DAG, the newest first.
    async fn dag_versions(&mut self, dag_id: &DagId) -> Result<Vec<DagVersion>, MetastoreError>;

    /// Adds a version.
    async fn insert_dag_version(&mut self, version: &DagVersion) -> Result<(), MetastoreError>;

    /// The serialized DAG with this hash.
    async fn serialized_dag(&mut self, hash: &str) -> Result<Option<Arc<str>>, MetastoreError>;

    /// Stores a serialized DAG under its hash; one that is there already stays.
    async fn put_serialized_dag(&mut self, hash: &str, json: &str) -> Result<(), MetastoreError>;

    /// Replaces what is known to be wrong with one file: no texts clears it.
    async fn replace_import_errors(
        &mut self,
        bundle_name: &BundleName,
        filename: &str,
        stack_traces: &[String],
        at: Timestamp,
    ) -> Result<(), MetastoreError>;

    /// Import errors, the newest first.
    async fn import_errors(
        &mut self,
        limit: u32,
        offset: u32,
    ) -> Result<Listing<ImportError>, MetastoreError>;

    /// Removes the import errors of files that a bundle no longer has.
    async fn keep_import_errors_of(
        &mut self,
        bundle_name: &BundleName,
        filenames: &[String],
    ) -> Result<(), MetastoreError>;

    /// The newest version of a bundle that was taken in, if any.
    async fn current_bundle_version(
        &mut self,
        bundle_name: &BundleName,
    ) -> Result<Option<BundleVersion>, MetastoreError>;

    /// Sets the newest version of a bundle.
    async fn set_current_bundle_version(
        &mut self,
        bundle_name: &BundleName,
        version: &BundleVersion,
        at: Timestamp,
    ) -> Result<(), MetastoreError>;

    /// The bundle versions that a bundle's current DAGs or unfinished runs still need.
    async fn bundle_versions_in_use(
        &mut self,
        bundle_name: &BundleName,
    ) -> Result<Vec<BundleVersion>, MetastoreError>;
}
