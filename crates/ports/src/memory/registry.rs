use std::{cmp::Reverse, collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use gust_model::{
    BundleName, BundleVersion, DagId, DagRunState, DagRunType, DagVersionId,
    record::{DagRecord, DagRun, DagVersion, ImportError, NextRun, Timestamp},
};

use super::{
    listing,
    table::{Key, Part, Row, key},
    tables::{BY_DAG, BY_RUN, CurrentBundle, ReferenceRow, RunRow, SerializedDag},
    transaction::{Transaction, View},
};
use crate::metastore::{DagFilter, DagSort, Listing, LockWait, MetastoreError, Page, RegistryRows};

fn dag_key(dag_id: &DagId) -> Key {
    key![dag_id.as_str()]
}

/// The newest run of a DAG.
fn newest_run<'v>(view: &'v View<'_>, dag_id: &DagId) -> Option<&'v DagRun> {
    let runs = view.find::<RunRow>(BY_DAG, dag_key(dag_id)).map(|row| &row.run);
    runs.max_by_key(|run| (run.run_after, run.id))
}

fn matches(dag: &DagRecord, filter: &DagFilter, view: &View<'_>) -> bool {
    let owners: Vec<&str> = dag.owners.split(',').map(str::trim).collect();
    listing::is_among(&filter.dag_ids, &dag.dag_id)
        && listing::holds(
            filter.name_contains.as_deref(),
            &[dag.dag_id.as_str(), dag.dag_display_name.as_deref().unwrap_or_default()],
        )
        && (filter.tags_any.is_empty() || filter.tags_any.iter().any(|tag| dag.tags.contains(tag)))
        && filter.tags_all.iter().all(|tag| dag.tags.contains(tag))
        && (filter.owners_any.is_empty()
            || filter.owners_any.iter().any(|owner| owners.contains(&owner.as_str())))
        && filter.is_paused.is_none_or(|wanted| dag.is_paused == wanted)
        && filter.is_stale.is_none_or(|wanted| dag.is_stale == wanted)
        && filter.has_import_errors.is_none_or(|wanted| dag.has_import_errors == wanted)
        && filter.bundle_name.as_ref().is_none_or(|wanted| dag.bundle_name == *wanted)
        && filter.relative_fileloc.as_ref().is_none_or(|wanted| dag.relative_fileloc == *wanted)
        && filter
            .last_run_state
            .is_none_or(|wanted| newest_run(view, &dag.dag_id).is_some_and(|run| run.state == wanted))
}

fn sort_column(view: &View<'_>, dag: &DagRecord, sort: DagSort) -> Option<Part> {
    match sort {
        DagSort::DagId => Some(dag.dag_id.as_str().into()),
        DagSort::DisplayName => Some(dag.dag_display_name.as_deref().unwrap_or(dag.dag_id.as_str()).into()),
        DagSort::IsPaused => Some(dag.is_paused.into()),
        DagSort::NextRunAfter => dag.next_run.as_ref().map(|next| next.run_after.into()),
        DagSort::LastRunState => newest_run(view, &dag.dag_id).map(|run| run.state.as_str().into()),
        DagSort::LastRunStartDate => newest_run(view, &dag.dag_id)?.start_date.map(Part::from),
    }
}

/// When a DAG that may have runs made has its next one made.
fn due_at(dag: &DagRecord) -> Option<Timestamp> {
    let next_run = dag.next_run.as_ref().filter(|_| !dag.is_paused && !dag.is_stale);
    next_run.map(|next| next.run_after)
}

#[async_trait]
impl RegistryRows for Transaction {
    async fn dag(&mut self, dag_id: &DagId) -> Result<Option<DagRecord>, MetastoreError> {
        self.statement("dag").await?;
        Ok(self.read(|view| view.get(&dag_key(dag_id)).cloned()))
    }

    async fn lock_dag(&mut self, dag_id: &DagId) -> Result<Option<DagRecord>, MetastoreError> {
        self.statement("lock_dag").await?;
        self.lock_row(&dag_key(dag_id), |_| true).await
    }

    async fn dags(
        &mut self,
        filter: &DagFilter,
        page: &Page<DagSort>,
    ) -> Result<Listing<DagRecord>, MetastoreError> {
        self.statement("dags").await?;
        Ok(self.read(|view| {
            let rows = view.rows::<DagRecord>().filter(|dag| matches(dag, filter, view)).cloned().collect();
            listing::page(rows, page, |dag, sort| sort_column(view, dag, sort), Row::key)
        }))
    }

    async fn put_dag(&mut self, dag: &DagRecord) -> Result<(), MetastoreError> {
        self.statement("put_dag").await?;
        self.upsert(dag.clone()).await
    }

    async fn set_dag_paused(&mut self, dag_id: &DagId, is_paused: bool) -> Result<bool, MetastoreError> {
        self.statement("set_dag_paused").await?;
        let Some(dag) = self.lock_row::<DagRecord>(&dag_key(dag_id), |_| true).await? else {
            return Ok(false);
        };
        self.update(DagRecord { is_paused, ..dag }).await?;
        Ok(true)
    }

    async fn set_next_run(
        &mut self,
        dag_id: &DagId,
        next_run: Option<&NextRun>,
    ) -> Result<(), MetastoreError> {
        self.statement("set_next_run").await?;
        match self.lock_row::<DagRecord>(&dag_key(dag_id), |_| true).await? {
            Some(dag) => self.update(DagRecord { next_run: next_run.cloned(), ..dag }).await,
            None => Ok(()),
        }
    }

    async fn mark_dags_stale(
        &mut self,
        bundle_name: &BundleName,
        relative_fileloc: Option<&str>,
        except: &[DagId],
    ) -> Result<Vec<DagId>, MetastoreError> {
        self.statement("mark_dags_stale").await?;
        let is_meant = |dag: &DagRecord| {
            !dag.is_stale
                && dag.bundle_name == *bundle_name
                && relative_fileloc.is_none_or(|file| dag.relative_fileloc == file)
                && !except.contains(&dag.dag_id)
        };
        let keys = self.read(|view| view.keys_where(is_meant));
        let dags = self.lock_rows(keys, LockWait::Wait, u32::MAX, is_meant).await?;
        let mut marked = Vec::new();
        for dag in dags {
            marked.push(dag.dag_id.clone());
            self.update(DagRecord { is_stale: true, ..dag }).await?;
        }
        Ok(marked)
    }

    async fn lock_due_dags(&mut self, now: Timestamp, limit: u32) -> Result<Vec<DagRecord>, MetastoreError> {
        self.statement("lock_due_dags").await?;
        let is_due = |dag: &DagRecord| !dag.has_import_errors && due_at(dag).is_some_and(|due| due <= now);
        let keys = self.read(|view| {
            let has_room = |dag: &DagRecord| {
                let active = view.find::<RunRow>(BY_DAG, dag_key(&dag.dag_id)).filter(|row| {
                    matches!(row.run.state, DagRunState::Queued | DagRunState::Running)
                        && row.run.run_type != DagRunType::Backfill
                });
                i32::try_from(active.count()).unwrap_or(i32::MAX) < dag.max_active_runs
            };
            let mut dags: Vec<&DagRecord> = view.rows().filter(|dag| is_due(dag) && has_room(dag)).collect();
            dags.sort_by_key(|dag| due_at(dag));
            dags.into_iter().map(Row::key).collect()
        });
        self.lock_rows(keys, LockWait::SkipLocked, limit, is_due).await
    }

    async fn next_due_dag_at(&mut self, now: Timestamp) -> Result<Option<Timestamp>, MetastoreError> {
        self.statement("next_due_dag_at").await?;
        Ok(self.read(|view| view.rows::<DagRecord>().filter_map(due_at).filter(|due| *due > now).min()))
    }

    async fn delete_dag(&mut self, dag_id: &DagId) -> Result<bool, MetastoreError> {
        self.statement("delete_dag").await?;
        if self.delete::<DagRecord>(vec![dag_key(dag_id)]).await?.is_empty() {
            return Ok(false);
        }
        for run in self.delete_found::<RunRow>(BY_DAG, dag_key(dag_id)).await? {
            self.delete_what_hangs_on_run(key![run.run.id.0]).await?;
        }
        self.delete_found::<DagVersion>(BY_DAG, dag_key(dag_id)).await?;
        self.delete_found::<ReferenceRow>(BY_DAG, dag_key(dag_id)).await?;
        self.delete_found::<gust_model::record::QueuedAssetEvent>(BY_DAG, dag_key(dag_id)).await?;
        Ok(true)
    }

    async fn dag_version(&mut self, id: DagVersionId) -> Result<Option<DagVersion>, MetastoreError> {
        self.statement("dag_version").await?;
        Ok(self.read(|view| view.get(&key![id.0]).cloned()))
    }

    async fn dag_versions(&mut self, dag_id: &DagId) -> Result<Vec<DagVersion>, MetastoreError> {
        self.statement("dag_versions").await?;
        let mut versions: Vec<DagVersion> =
            self.read(|view| view.find(BY_DAG, dag_key(dag_id)).cloned().collect());
        versions.sort_by_key(|version| Reverse(version.version_number));
        Ok(versions)
    }

    async fn insert_dag_version(&mut self, version: &DagVersion) -> Result<(), MetastoreError> {
        self.statement("insert_dag_version").await?;
        self.insert_new(version.clone(), || {
            format!("version {} of DAG {}", version.version_number, version.dag_id)
        })
        .await
    }

    async fn serialized_dag(&mut self, hash: &str) -> Result<Option<Arc<str>>, MetastoreError> {
        self.statement("serialized_dag").await?;
        Ok(self.read(|view| view.get(&key![hash]).map(|row: &SerializedDag| row.json.clone())))
    }

    async fn put_serialized_dag(&mut self, hash: &str, json: &str) -> Result<(), MetastoreError> {
        self.statement("put_serialized_dag").await?;
        self.insert(SerializedDag { hash: hash.to_owned(), json: json.into() }).await?;
        Ok(())
    }

    async fn replace_import_errors(
        &mut self,
        bundle_name: &BundleName,
        filename: &str,
        stack_traces: &[String],
        at: Timestamp,
    ) -> Result<(), MetastoreError> {
        self.statement("replace_import_errors").await?;
        self.delete_where(|error: &ImportError| {
            error.bundle_name == *bundle_name && error.filename == filename
        })
        .await?;
        for stack_trace in stack_traces {
            let error = ImportError {
                id: self.next_number(),
                bundle_name: bundle_name.clone(),
                filename: filename.to_owned(),
                stack_trace: stack_trace.clone(),
                timestamp: at,
            };
            self.insert(error).await?;
        }
        Ok(())
    }

    async fn import_errors(
        &mut self,
        limit: u32,
        offset: u32,
    ) -> Result<Listing<ImportError>, MetastoreError> {
        self.statement("import_errors").await?;
        let mut errors: Vec<ImportError> = self.read(|view| view.rows().cloned().collect());
        errors.sort_by_key(|error| Reverse((error.timestamp, error.id)));
        Ok(listing::slice(errors, limit, offset))
    }

    async fn keep_import_errors_of(
        &mut self,
        bundle_name: &BundleName,
        filenames: &[String],
    ) -> Result<(), MetastoreError> {
        self.statement("keep_import_errors_of").await?;
        self.delete_where(|error: &ImportError| {
            error.bundle_name == *bundle_name && !filenames.contains(&error.filename)
        })
        .await?;
        Ok(())
    }

    async fn current_bundle_version(
        &mut self,
        bundle_name: &BundleName,
    ) -> Result<Option<BundleVersion>, MetastoreError> {
        self.statement("current_bundle_version").await?;
        Ok(self.read(|view| {
            view.get(&key![bundle_name.as_str()]).map(|bundle: &CurrentBundle| bundle.version.clone())
        }))
    }

    async fn set_current_bundle_version(
        &mut self,
        bundle_name: &BundleName,
        version: &BundleVersion,
        _at: Timestamp,
    ) -> Result<(), MetastoreError> {
        self.statement("set_current_bundle_version").await?;
        self.upsert(CurrentBundle { name: bundle_name.clone(), version: version.clone() }).await
    }

    async fn bundle_versions_in_use(
        &mut self,
        bundle_name: &BundleName,
    ) -> Result<Vec<BundleVersion>, MetastoreError> {
        self.statement("bundle_versions_in_use").await?;
        Ok(self.read(|view| {
            let of_dags = view
                .rows::<DagRecord>()
                .filter(|dag| !dag.is_stale && dag.bundle_name == *bundle_name)
                .filter_map(|dag| dag.bundle_version.clone());
            let of_runs = view
                .rows::<RunRow>()
                .filter(|row| !row.run.state.is_finished())
                .filter(|row| {
                    view.get::<DagVersion>(&key![row.run.dag_version_id.0])
                        .is_some_and(|version| version.bundle_name == *bundle_name)
                })
                .filter_map(|row| row.run.bundle_version.clone());
            let versions: BTreeSet<BundleVersion> = of_dags.chain(of_runs).collect();
            versions.into_iter().collect()
        }))
    }
}

impl Transaction {
    /// Deletes everything that belongs to a run, whose row is gone.
    pub(super) async fn delete_what_hangs_on_run(&mut self, run: Key) -> Result<(), MetastoreError> {
        use gust_model::record::{TaskTally, XCom};

        use super::tables::{ConsumedEvent, StateEntry, TaskInstanceRow, scope_key};

        let task_instances =
            self.read(|view| view.find::<TaskInstanceRow>(BY_RUN, run.clone()).map(Row::key).collect());
        self.delete_task_instance_rows(task_instances).await?;
        self.delete_found::<TaskTally>(BY_RUN, run.clone()).await?;
        self.delete_found::<XCom>(BY_RUN, run.clone()).await?;
        self.delete_found::<ConsumedEvent>(BY_RUN, run.clone()).await?;
        self.delete_where(|entry: &StateEntry| {
            matches!(entry.scope, gust_model::record::StateStoreScope::Task(..))
                && scope_key(&entry.scope).get(1) == run.first()
        })
        .await?;
        Ok(())
    }
}
