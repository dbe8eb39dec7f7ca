use std::sync::Arc;

use async_trait::async_trait;
use gust_model::{
    BundleName, BundleVersion, DagId, DagVersionId,
    record::{DagRecord, DagVersion, ImportError, NextRun, Timestamp},
};
use gust_ports::{
    MetastoreError,
    metastore::{DagFilter, DagSort, Listing, Page, RegistryRows},
};

use super::{
    did_change,
    filters::{Conditions, order_of},
    page_of, read_all,
};
use crate::{
    connection::{Row, SqlTx},
    dialect::{Dialect, Statement, batches, values},
};

/// The columns of `dag`, its tags beside them as one JSON list. `d` is the table.
fn dag_columns(dialect: Dialect) -> &'static str {
    macro_rules! columns {
        ($tags:literal) => {
            concat!(
                "d.dag_id, d.dag_display_name, d.bundle_name, d.bundle_version, d.relative_fileloc, \
                 d.current_version_id, d.is_paused, d.is_stale, d.has_import_errors, d.description, d.owners, \
                 d.timetable_summary, d.timetable_description, d.is_scheduled, d.max_active_runs, \
                 d.max_active_tasks, d.max_consecutive_failed_dag_runs, d.next_run_after, \
                 d.next_run_logical_date, d.next_run_data_interval_start, d.next_run_data_interval_end, \
                 d.next_run_partition_key, d.asset_expression, d.last_parsed_at, d.last_parse_duration, ",
                $tags,
                " AS tags"
            )
        };
    }
    match dialect {
        Dialect::Sqlite => {
            columns!("(SELECT json_group_array(t.tag) FROM dag_tag t WHERE t.dag_id = d.dag_id)")
        }
        Dialect::Postgres => columns!("(SELECT json_agg(t.tag) FROM dag_tag t WHERE t.dag_id = d.dag_id)"),
    }
}

fn read_dag(row: &Row) -> Result<DagRecord, MetastoreError> {
    let r = row.of("dag");
    let next_run = match r.time_or_null("next_run_after")? {
        None => None,
        Some(run_after) => Some(NextRun {
            run_after,
            logical_date: r.time_or_null("next_run_logical_date")?,
            data_interval_start: r.time_or_null("next_run_data_interval_start")?,
            data_interval_end: r.time_or_null("next_run_data_interval_end")?,
            partition_key: r.text_or_null("next_run_partition_key")?,
        }),
    };
    let mut tags: Vec<String> = r.json_or_null("tags")?.unwrap_or_default();
    tags.sort_unstable();
    Ok(DagRecord {
        dag_id: r.text("dag_id")?,
        dag_display_name: r.text_or_null("dag_display_name")?,
        bundle_name: r.text("bundle_name")?,
        bundle_version: r.text_or_null("bundle_version")?,
        relative_fileloc: r.text("relative_fileloc")?,
        current_version_id: DagVersionId(r.uuid("current_version_id")?),
        is_paused: r.flag("is_paused")?,
        is_stale: r.flag("is_stale")?,
        has_import_errors: r.flag("has_import_errors")?,
        description: r.text_or_null("description")?,
        owners: r.text("owners")?,
        tags,
        timetable_summary: r.text_or_null("timetable_summary")?,
        timetable_description: r.text_or_null("timetable_description")?,
        is_scheduled: r.flag("is_scheduled")?,
        max_active_runs: r.small("max_active_runs")?,
        max_active_tasks: r.small("max_active_tasks")?,
        max_consecutive_failed_dag_runs: r.small("max_consecutive_failed_dag_runs")?,
        next_run,
        asset_expression: r.json("asset_expression")?,
        last_parsed_at: r.time("last_parsed_at")?,
        last_parse_duration: r.float("last_parse_duration")?,
    })
}

const VERSION_COLUMNS: &str = "id, dag_id, version_number, bundle_name, bundle_version, hash, created_at";

fn read_version(row: &Row) -> Result<DagVersion, MetastoreError> {
    let r = row.of("dag_version");
    Ok(DagVersion {
        id: DagVersionId(r.uuid("id")?),
        dag_id: r.text("dag_id")?,
        version_number: r.small("version_number")?,
        bundle_name: r.text("bundle_name")?,
        bundle_version: r.text_or_null("bundle_version")?,
        hash: r.text("hash")?,
        created_at: r.time("created_at")?,
    })
}

fn read_import_error(row: &Row) -> Result<ImportError, MetastoreError> {
    let r = row.of("import_error");
    Ok(ImportError {
        id: r.int("id")?,
        bundle_name: r.text("bundle_name")?,
        filename: r.text("filename")?,
        stack_trace: r.text("stack_trace")?,
        timestamp: r.time("timestamp")?,
    })
}

fn sort_column(sort: DagSort) -> &'static str {
    match sort {
        DagSort::DagId => "d.dag_id",
        DagSort::DisplayName => "coalesce(d.dag_display_name, d.dag_id)",
        DagSort::IsPaused => "d.is_paused",
        DagSort::NextRunAfter => "d.next_run_after",
        DagSort::LastRunState => "last_run.state",
        DagSort::LastRunStartDate => "last_run.start_date",
    }
}

/// `FROM dag d`, its newest run beside it where something asks for it, and the filter's conditions.
fn matching_dags(statement: &mut Statement, filter: &DagFilter, needs_last_run: bool) {
    statement.raw("FROM dag d");
    if needs_last_run {
        statement.raw(
            " LEFT JOIN dag_run last_run ON last_run.id = (SELECT r.id FROM dag_run r WHERE r.dag_id = d.dag_id \
             ORDER BY r.run_after DESC, r.id DESC LIMIT 1)",
        );
    }
    let mut conditions = Conditions::new(statement);
    conditions.one_of_texts("d.dag_id", filter.dag_ids.iter().map(DagId::as_str));
    if let Some(name) = &filter.name_contains {
        conditions.and().raw("(").holds_in_any_case("d.dag_id", name).raw(" OR ");
        conditions.statement().holds_in_any_case("coalesce(d.dag_display_name, '')", name).raw(")");
    }
    if !filter.tags_any.is_empty() {
        let tags = filter.tags_any.iter().map(String::as_str);
        let statement = conditions.and();
        statement
            .raw("EXISTS (SELECT 1 FROM dag_tag t WHERE t.dag_id = d.dag_id AND t.tag IN ")
            .text_set(tags);
        statement.raw(")");
    }
    for tag in &filter.tags_all {
        conditions
            .and()
            .add("EXISTS (SELECT 1 FROM dag_tag t WHERE t.dag_id = d.dag_id AND t.tag = ?)", values![tag]);
    }
    if !filter.owners_any.is_empty() {
        // Owners are joined by commas, with or without a space after them.
        let statement = conditions.and();
        for (i, owner) in filter.owners_any.iter().enumerate() {
            statement.raw(if i == 0 { "(" } else { " OR " });
            statement.holds("',' || replace(d.owners, ', ', ',') || ','", &format!(",{owner},"));
        }
        statement.raw(")");
    }
    conditions.equals("d.is_paused", filter.is_paused);
    conditions.equals("d.is_stale", filter.is_stale);
    conditions.equals("d.has_import_errors", filter.has_import_errors);
    conditions.equals("d.bundle_name", filter.bundle_name.as_ref());
    conditions.equals("d.relative_fileloc", filter.relative_fileloc.as_ref());
    conditions.equals("last_run.state", filter.last_run_state);
}

#[async_trait]
impl RegistryRows for SqlTx {
    async fn dag(&mut self, dag_id: &DagId) -> Result<Option<DagRecord>, MetastoreError> {
        let mut statement = self.statement();
        let columns = dag_columns(self.dialect());
        statement.raw("SELECT ").raw(columns).add(" FROM dag d WHERE d.dag_id = ?", values![dag_id]);
        self.first(statement).await?.map(|row| read_dag(&row)).transpose()
    }

    async fn lock_dag(&mut self, dag_id: &DagId) -> Result<Option<DagRecord>, MetastoreError> {
        let mut statement = self.statement();
        let columns = dag_columns(self.dialect());
        statement.raw("SELECT ").raw(columns);
        statement.add(" FROM dag d WHERE d.dag_id = ? {lock}", values![dag_id]);
        self.first(statement).await?.map(|row| read_dag(&row)).transpose()
    }

    async fn dags(
        &mut self,
        filter: &DagFilter,
        page: &Page<DagSort>,
    ) -> Result<Listing<DagRecord>, MetastoreError> {
        let sorts_by_last_run = page
            .sort
            .iter()
            .any(|(sort, _)| matches!(sort, DagSort::LastRunState | DagSort::LastRunStartDate));
        let needs_last_run = sorts_by_last_run || filter.last_run_state.is_some();
        let columns = dag_columns(self.dialect());
        let order = order_of(page, sort_column, "d.dag_id");
        let matching = |statement: &mut Statement| matching_dags(statement, filter, needs_last_run);
        page_of(self, columns, matching, &order, (page.limit, page.offset), read_dag).await
    }

    async fn put_dag(&mut self, dag: &DagRecord) -> Result<(), MetastoreError> {
        let next = dag.next_run.as_ref();
        let mut statement = self.statement();
        statement.add(
            "INSERT INTO dag (dag_id, dag_display_name, bundle_name, bundle_version, relative_fileloc, \
             current_version_id, is_paused, is_stale, has_import_errors, description, owners, timetable_summary, \
             timetable_description, is_scheduled, max_active_runs, max_active_tasks, \
             max_consecutive_failed_dag_runs, next_run_after, next_run_logical_date, \
             next_run_data_interval_start, next_run_data_interval_end, next_run_partition_key, asset_expression, \
             last_parsed_at, last_parse_duration) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
             ON CONFLICT (dag_id) DO UPDATE SET dag_display_name = excluded.dag_display_name, \
             bundle_name = excluded.bundle_name, bundle_version = excluded.bundle_version, \
             relative_fileloc = excluded.relative_fileloc, current_version_id = excluded.current_version_id, \
             is_paused = excluded.is_paused, is_stale = excluded.is_stale, \
             has_import_errors = excluded.has_import_errors, description = excluded.description, \
             owners = excluded.owners, timetable_summary = excluded.timetable_summary, \
             timetable_description = excluded.timetable_description, is_scheduled = excluded.is_scheduled, \
             max_active_runs = excluded.max_active_runs, max_active_tasks = excluded.max_active_tasks, \
             max_consecutive_failed_dag_runs = excluded.max_consecutive_failed_dag_runs, \
             next_run_after = excluded.next_run_after, next_run_logical_date = excluded.next_run_logical_date, \
             next_run_data_interval_start = excluded.next_run_data_interval_start, \
             next_run_data_interval_end = excluded.next_run_data_interval_end, \
             next_run_partition_key = excluded.next_run_partition_key, \
             asset_expression = excluded.asset_expression, last_parsed_at = excluded.last_parsed_at, \
             last_parse_duration = excluded.last_parse_duration",
            values![
                &dag.dag_id,
                &dag.dag_display_name,
                &dag.bundle_name,
                &dag.bundle_version,
                &dag.relative_fileloc,
                dag.current_version_id,
                dag.is_paused,
                dag.is_stale,
                dag.has_import_errors,
                &dag.description,
                &dag.owners,
                &dag.timetable_summary,
                &dag.timetable_description,
                dag.is_scheduled,
                dag.max_active_runs,
                dag.max_active_tasks,
                dag.max_consecutive_failed_dag_runs,
                next.map(|next| next.run_after),
                next.and_then(|next| next.logical_date),
                next.and_then(|next| next.data_interval_start),
                next.and_then(|next| next.data_interval_end),
                next.and_then(|next| next.partition_key.as_deref()),
                &dag.asset_expression,
                dag.last_parsed_at,
                dag.last_parse_duration,
            ],
        );
        self.run(statement).await?;
        let mut statement = self.statement();
        statement.add("DELETE FROM dag_tag WHERE dag_id = ?", values![&dag.dag_id]);
        self.run(statement).await?;
        for tags in batches(&dag.tags) {
            let mut statement = self.statement();
            statement.raw("INSERT INTO dag_tag (dag_id, tag) VALUES ");
            for (i, tag) in tags.iter().enumerate() {
                statement.raw(if i == 0 { "" } else { ", " }).add("(?, ?)", values![&dag.dag_id, tag]);
            }
            statement.raw(" ON CONFLICT DO NOTHING");
            self.run(statement).await?;
        }
        Ok(())
    }

    async fn set_dag_paused(&mut self, dag_id: &DagId, is_paused: bool) -> Result<bool, MetastoreError> {
        let mut statement = self.statement();
        statement.add("UPDATE dag SET is_paused = ? WHERE dag_id = ?", values![is_paused, dag_id]);
        self.run(statement).await.map(did_change)
    }

    async fn set_next_run(
        &mut self,
        dag_id: &DagId,
        next_run: Option<&NextRun>,
    ) -> Result<(), MetastoreError> {
        let mut statement = self.statement();
        statement.add(
            "UPDATE dag SET next_run_after = ?, next_run_logical_date = ?, next_run_data_interval_start = ?, \
             next_run_data_interval_end = ?, next_run_partition_key = ? WHERE dag_id = ?",
            values![
                next_run.map(|next| next.run_after),
                next_run.and_then(|next| next.logical_date),
                next_run.and_then(|next| next.data_interval_start),
                next_run.and_then(|next| next.data_interval_end),
                next_run.and_then(|next| next.partition_key.as_deref()),
                dag_id,
            ],
        );
        self.run(statement).await.map(drop)
    }

    async fn mark_dags_stale(
        &mut self,
        bundle_name: &BundleName,
        relative_fileloc: Option<&str>,
        except: &[DagId],
    ) -> Result<Vec<DagId>, MetastoreError> {
        let mut statement = self.statement();
        statement.add(
            "UPDATE dag SET is_stale = ? WHERE NOT is_stale AND bundle_name = ?",
            values![true, bundle_name],
        );
        if let Some(relative_fileloc) = relative_fileloc {
            statement.add(" AND relative_fileloc = ?", values![relative_fileloc]);
        }
        if !except.is_empty() {
            statement.raw(" AND dag_id NOT IN ").text_set(except.iter().map(DagId::as_str));
        }
        statement.raw(" RETURNING dag_id");
        let rows = self.all(statement).await?;
        let mut changed: Vec<DagId> = read_all(&rows, |row| row.of("dag").text("dag_id"))?;
        changed.sort_unstable();
        Ok(changed)
    }

    async fn lock_due_dags(&mut self, now: Timestamp, limit: u32) -> Result<Vec<DagRecord>, MetastoreError> {
        let mut statement = self.statement();
        let columns = dag_columns(self.dialect());
        statement.raw("SELECT ").raw(columns).add(
            " FROM dag d WHERE NOT d.is_paused AND NOT d.is_stale AND NOT d.has_import_errors \
             AND d.next_run_after <= ? \
             AND (SELECT count(*) FROM dag_run r WHERE r.dag_id = d.dag_id AND r.state IN ('queued', 'running') \
             AND r.run_type <> 'backfill') < d.max_active_runs \
             ORDER BY d.next_run_after, d.dag_id LIMIT ? {lock} {skip_locked}",
            values![now, limit],
        );
        let rows = self.all(statement).await?;
        read_all(&rows, read_dag)
    }

    async fn next_due_dag_at(&mut self, now: Timestamp) -> Result<Option<Timestamp>, MetastoreError> {
        let mut statement = self.statement();
        statement.add(
            "SELECT min(next_run_after) AS due FROM dag \
             WHERE NOT is_paused AND NOT is_stale AND next_run_after > ?",
            values![now],
        );
        self.one(statement).await?.of("dag").time_or_null("due")
    }

    async fn delete_dag(&mut self, dag_id: &DagId) -> Result<bool, MetastoreError> {
        let mut statement = self.statement();
        statement.add("DELETE FROM dag WHERE dag_id = ?", values![dag_id]);
        self.run(statement).await.map(did_change)
    }

    async fn dag_version(&mut self, id: DagVersionId) -> Result<Option<DagVersion>, MetastoreError> {
        let mut statement = self.statement();
        statement.raw("SELECT ").raw(VERSION_COLUMNS).add(" FROM dag_version WHERE id = ?", values![id]);
        self.first(statement).await?.map(|row| read_version(&row)).transpose()
    }

    async fn dag_versions(&mut self, dag_id: &DagId) -> Result<Vec<DagVersion>, MetastoreError> {
        let mut statement = self.statement();
        statement
            .raw("SELECT ")
            .raw(VERSION_COLUMNS)
            .add(" FROM dag_version WHERE dag_id = ? ORDER BY version_number DESC", values![dag_id]);
        let rows = self.all(statement).await?;
        read_all(&rows, read_version)
    }

    async fn insert_dag_version(&mut self, version: &DagVersion) -> Result<(), MetastoreError> {
        let mut statement = self.statement();
        statement.raw("INSERT INTO dag_version (").raw(VERSION_COLUMNS).add(
            ") VALUES (?, ?, ?, ?, ?, ?, ?)",
            values![
                version.id,
                &version.dag_id,
                version.version_number,
                &version.bundle_name,
                &version.bundle_version,
                &version.hash,
                version.created_at,
            ],
        );
        self.run(statement).await.map(drop)
    }

    async fn serialized_dag(&mut self, hash: &str) -> Result<Option<Arc<str>>, MetastoreError> {
        let mut statement = self.statement();
        statement.add("SELECT json FROM serialized_dag WHERE hash = ?", values![hash]);
        self.first(statement).await?.map(|row| row.of("serialized_dag").text("json")).transpose()
    }

    async fn put_serialized_dag(&mut self, hash: &str, json: &str) -> Result<(), MetastoreError> {
        let mut statement = self.statement();
        statement.add(
            "INSERT INTO serialized_dag (hash, json) VALUES (?, ?) ON CONFLICT (hash) DO NOTHING",
            values![hash, json],
        );
        self.run(statement).await.map(drop)
    }

    async fn replace_import_errors(
        &mut self,
        bundle_name: &BundleName,
        filename: &str,
        stack_traces: &[String],
        at: Timestamp,
    ) -> Result<(), MetastoreError> {
        let mut statement = self.statement();
        statement.add(
            "DELETE FROM import_error WHERE bundle_name = ? AND filename = ?",
            values![bundle_name, filename],
        );
        self.run(statement).await?;
        for stack_traces in batches(stack_traces) {
            let mut statement = self.statement();
            statement.raw("INSERT INTO import_error (bundle_name, filename, stack_trace, timestamp) VALUES ");
            for (i, stack_trace) in stack_traces.iter().enumerate() {
                let comma = if i == 0 { "" } else { ", " };
                statement.raw(comma).add("(?, ?, ?, ?)", values![bundle_name, filename, stack_trace, at]);
            }
            self.run(statement).await?;
        }
        Ok(())
    }

    async fn import_errors(
        &mut self,
        limit: u32,
        offset: u32,
    ) -> Result<Listing<ImportError>, MetastoreError> {
        let columns = "id, bundle_name, filename, stack_trace, timestamp";
        let matching = |statement: &mut Statement| {
            statement.raw("FROM import_error");
        };
        page_of(self, columns, matching, "timestamp DESC, id DESC", (limit, offset), read_import_error).await
    }

    async fn keep_import_errors_of(
        &mut self,
        bundle_name: &BundleName,
        filenames: &[String],
    ) -> Result<(), MetastoreError> {
        let mut statement = self.statement();
        statement.add("DELETE FROM import_error WHERE bundle_name = ?", values![bundle_name]);
        if !filenames.is_empty() {
            statement.raw(" AND filename NOT IN ").text_set(filenames.iter().map(String::as_str));
        }
        self.run(statement).await.map(drop)
    }

    async fn current_bundle_version(
        &mut self,
        bundle_name: &BundleName,
    ) -> Result<Option<BundleVersion>, MetastoreError> {
        let mut statement = self.statement();
        statement.add("SELECT current_version FROM bundle WHERE name = ?", values![bundle_name]);
        self.first(statement).await?.map(|row| row.of("bundle").text("current_version")).transpose()
    }

    async fn set_current_bundle_version(
        &mut self,
        bundle_name: &BundleName,
        version: &BundleVersion,
        at: Timestamp,
    ) -> Result<(), MetastoreError> {
        let mut statement = self.statement();
        statement.add(
            "INSERT INTO bundle (name, current_version, updated_at) VALUES (?, ?, ?) ON CONFLICT (name) \
             DO UPDATE SET current_version = excluded.current_version, updated_at = excluded.updated_at",
            values![bundle_name, version, at],
        );
        self.run(statement).await.map(drop)
    }

    async fn bundle_versions_in_use(
        &mut self,
        bundle_name: &BundleName,
    ) -> Result<Vec<BundleVersion>, MetastoreError> {
        let mut statement = self.statement();
        statement.add(
            "SELECT d.bundle_version AS version FROM dag d \
             WHERE d.bundle_name = ? AND NOT d.is_stale AND d.bundle_version IS NOT NULL \
             UNION SELECT r.bundle_version FROM dag d JOIN dag_run r ON r.dag_id = d.dag_id \
             WHERE d.bundle_name = ? AND r.state IN ('queued', 'running') AND r.bundle_version IS NOT NULL \
             ORDER BY version",
            values![bundle_name, bundle_name],
        );
        let rows = self.all(statement).await?;
        read_all(&rows, |row| row.of("dag").text("version"))
    }
}
