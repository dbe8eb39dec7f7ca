-- The first schema, for SQLite. Moments are microseconds since 1970-01-01 UTC, row ids are the 16 bytes of a UUID,
-- flags are 0 or 1, and JSON is text.

-- Bundles and the newest version of each that was taken in.
CREATE TABLE bundle (
    name TEXT NOT NULL,
    current_version TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (name)
) STRICT, WITHOUT ROWID;

-- Serialized DAGs by the hash of their canonical form; versions point at them by hash.
CREATE TABLE serialized_dag (
    hash TEXT NOT NULL,
    json TEXT NOT NULL,
    PRIMARY KEY (hash)
) STRICT;

CREATE TABLE dag (
    dag_id TEXT NOT NULL,
    dag_display_name TEXT,
    bundle_name TEXT NOT NULL,
    bundle_version TEXT,
    relative_fileloc TEXT NOT NULL,
    current_version_id BLOB NOT NULL,
    is_paused INTEGER NOT NULL CHECK (is_paused IN (0, 1)),
    is_stale INTEGER NOT NULL CHECK (is_stale IN (0, 1)),
    has_import_errors INTEGER NOT NULL CHECK (has_import_errors IN (0, 1)),
    description TEXT,
    owners TEXT NOT NULL,
    timetable_summary TEXT,
    timetable_description TEXT,
    is_scheduled INTEGER NOT NULL CHECK (is_scheduled IN (0, 1)),
    max_active_runs INTEGER NOT NULL,
    max_active_tasks INTEGER NOT NULL,
    max_consecutive_failed_dag_runs INTEGER NOT NULL,
    next_run_after INTEGER,
    next_run_logical_date INTEGER,
    next_run_data_interval_start INTEGER,
    next_run_data_interval_end INTEGER,
    next_run_partition_key TEXT,
    asset_expression TEXT NOT NULL,
    last_parsed_at INTEGER NOT NULL,
    last_parse_duration REAL NOT NULL,
    PRIMARY KEY (dag_id)
) STRICT;
CREATE INDEX dag_by_file ON dag (bundle_name, relative_fileloc);
CREATE INDEX dag_due ON dag (next_run_after, dag_id) WHERE NOT is_paused AND NOT is_stale AND next_run_after IS NOT NULL;

CREATE TABLE dag_tag (
    dag_id TEXT NOT NULL,
    tag TEXT NOT NULL,
    PRIMARY KEY (dag_id, tag),
    FOREIGN KEY (dag_id) REFERENCES dag (dag_id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
) STRICT, WITHOUT ROWID;
CREATE INDEX dag_tag_by_tag ON dag_tag (tag);

CREATE TABLE dag_version (
    id BLOB NOT NULL,
    dag_id TEXT NOT NULL,
    version_number INTEGER NOT NULL,
    bundle_name TEXT NOT NULL,
    bundle_version TEXT,
    hash TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (dag_id, version_number),
    FOREIGN KEY (dag_id) REFERENCES dag (dag_id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
) STRICT;

CREATE TABLE import_error (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    bundle_name TEXT NOT NULL,
    filename TEXT NOT NULL,
    stack_trace TEXT NOT NULL,
    timestamp INTEGER NOT NULL
) STRICT;
CREATE INDEX import_error_by_file ON import_error (bundle_name, filename);

CREATE TABLE dag_run (
    id BLOB NOT NULL,
    dag_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    run_type TEXT NOT NULL,
    state TEXT NOT NULL,
    logical_date INTEGER,
    data_interval_start INTEGER,
    data_interval_end INTEGER,
    run_after INTEGER NOT NULL,
    queued_at INTEGER NOT NULL,
    start_date INTEGER,
    end_date INTEGER,
    conf TEXT NOT NULL,
    triggered_by TEXT,
    triggering_user TEXT,
    dag_version_id BLOB NOT NULL,
    bundle_version TEXT,
    clear_number INTEGER NOT NULL,
    backfill_id BLOB,
    partition_key TEXT,
    note TEXT,
    unfinished_count INTEGER NOT NULL,
    under_way_count INTEGER NOT NULL,
    is_expanded INTEGER NOT NULL CHECK (is_expanded IN (0, 1)),
    is_dirty INTEGER NOT NULL CHECK (is_dirty IN (0, 1)),
    due_at INTEGER,
    last_scheduling_decision INTEGER,
    change_seq INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (dag_id, run_id),
    UNIQUE (dag_id, logical_date),
    FOREIGN KEY (dag_id) REFERENCES dag (dag_id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
) STRICT;
CREATE INDEX dag_run_by_run_after ON dag_run (dag_id, run_after, id);
CREATE INDEX dag_run_by_state ON dag_run (dag_id, state);

-- Each of these holds only what waits for one kind of attention, so that a pass costs what changed and not what exists.
CREATE INDEX dag_run_queued ON dag_run (run_after, id) WHERE state = 'queued';
CREATE INDEX dag_run_dirty ON dag_run (id) WHERE state = 'running' AND is_dirty;
CREATE INDEX dag_run_due ON dag_run (due_at) WHERE state = 'running' AND due_at IS NOT NULL;
CREATE INDEX dag_run_unfinished ON dag_run (dag_id, bundle_version) WHERE state IN ('queued', 'running');

CREATE TABLE task_tally (
    dag_run_id BLOB NOT NULL,
    task_id TEXT NOT NULL,
    expanded_length INTEGER,
    own TEXT NOT NULL,
    upstream TEXT NOT NULL,
    PRIMARY KEY (dag_run_id, task_id),
    FOREIGN KEY (dag_run_id) REFERENCES dag_run (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
) STRICT, WITHOUT ROWID;

-- run_after repeats the run's, which never changes, so that the heaviest of the earliest run is found by one index.
CREATE TABLE task_instance (
    id BLOB NOT NULL,
    dag_run_id BLOB NOT NULL,
    dag_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    task_id TEXT NOT NULL,
    map_index INTEGER NOT NULL,
    state TEXT NOT NULL,
    accounted_state TEXT NOT NULL,
    is_dirty INTEGER NOT NULL CHECK (is_dirty IN (0, 1)),
    change_seq INTEGER NOT NULL,
    try_number INTEGER NOT NULL,
    max_tries INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    lease_attempt_id BLOB,
    lease_expires_at INTEGER,
    scheduled_at INTEGER,
    queued_at INTEGER,
    resend_at INTEGER,
    send_count INTEGER NOT NULL,
    start_date INTEGER,
    end_date INTEGER,
    due_at INTEGER,
    pool TEXT NOT NULL,
    pool_slots INTEGER NOT NULL,
    queue TEXT NOT NULL,
    priority_weight INTEGER NOT NULL,
    executor TEXT,
    operator TEXT NOT NULL,
    operator_name TEXT,
    task_display_name TEXT,
    rendered_map_index TEXT,
    hostname TEXT,
    pid INTEGER,
    next_method TEXT,
    next_kwargs TEXT NOT NULL,
    trigger_id BLOB,
    retry_delay_override REAL,
    retry_reason TEXT,
    dag_version_id BLOB NOT NULL,
    note TEXT,
    updated_at INTEGER NOT NULL,
    run_after INTEGER NOT NULL,
    followed_until INTEGER,
    PRIMARY KEY (id),
    UNIQUE (dag_run_id, task_id, map_index),
    FOREIGN KEY (dag_run_id) REFERENCES dag_run (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
) STRICT;
CREATE INDEX task_instance_dirty ON task_instance (dag_run_id, id) WHERE is_dirty;
CREATE INDEX task_instance_resting ON task_instance (dag_run_id, due_at) WHERE state IN ('up_for_retry', 'up_for_reschedule');
CREATE INDEX task_instance_rest_due ON task_instance (due_at, dag_run_id) WHERE state IN ('up_for_retry', 'up_for_reschedule');
CREATE INDEX task_instance_wait_due ON task_instance (due_at) WHERE state IN ('deferred', 'awaiting_input');
CREATE INDEX task_instance_scheduled ON task_instance (priority_weight DESC, run_after, id) WHERE state = 'scheduled';
CREATE INDEX task_instance_queued ON task_instance (queue, priority_weight DESC, queued_at, id) WHERE state = 'queued';
CREATE INDEX task_instance_resend ON task_instance (resend_at) WHERE state = 'queued';
CREATE INDEX task_instance_lease ON task_instance (lease_expires_at) WHERE state = 'running';
CREATE INDEX task_instance_active ON task_instance (dag_id, dag_run_id, task_id, state) WHERE state IN ('queued', 'running', 'deferred', 'awaiting_input');
CREATE INDEX task_instance_slots ON task_instance (pool, state, pool_slots) WHERE state IN ('scheduled', 'queued', 'running', 'deferred');

-- Tries that are over: the row as it was.
CREATE TABLE task_instance_try (
    id BLOB NOT NULL,
    dag_run_id BLOB NOT NULL,
    dag_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    task_id TEXT NOT NULL,
    map_index INTEGER NOT NULL,
    state TEXT NOT NULL,
    accounted_state TEXT NOT NULL,
    is_dirty INTEGER NOT NULL CHECK (is_dirty IN (0, 1)),
    change_seq INTEGER NOT NULL,
    try_number INTEGER NOT NULL,
    max_tries INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    lease_attempt_id BLOB,
    lease_expires_at INTEGER,
    scheduled_at INTEGER,
    queued_at INTEGER,
    resend_at INTEGER,
    send_count INTEGER NOT NULL,
    start_date INTEGER,
    end_date INTEGER,
    due_at INTEGER,
    pool TEXT NOT NULL,
    pool_slots INTEGER NOT NULL,
    queue TEXT NOT NULL,
    priority_weight INTEGER NOT NULL,
    executor TEXT,
    operator TEXT NOT NULL,
    operator_name TEXT,
    task_display_name TEXT,
    rendered_map_index TEXT,
    hostname TEXT,
    pid INTEGER,
    next_method TEXT,
    next_kwargs TEXT NOT NULL,
    trigger_id BLOB,
    retry_delay_override REAL,
    retry_reason TEXT,
    dag_version_id BLOB NOT NULL,
    note TEXT,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (id, try_number),
    FOREIGN KEY (id) REFERENCES task_instance (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
) STRICT;

CREATE TABLE task_reschedule (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    task_instance_id BLOB NOT NULL,
    try_number INTEGER NOT NULL,
    start_date INTEGER NOT NULL,
    end_date INTEGER NOT NULL,
    reschedule_date INTEGER NOT NULL,
    FOREIGN KEY (task_instance_id) REFERENCES task_instance (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
) STRICT;
CREATE INDEX task_reschedule_by_try ON task_reschedule (task_instance_id, try_number, start_date);

CREATE TABLE pool (
    name TEXT NOT NULL,
    slots INTEGER NOT NULL,
    description TEXT,
    include_deferred INTEGER NOT NULL CHECK (include_deferred IN (0, 1)),
    PRIMARY KEY (name)
) STRICT, WITHOUT ROWID;

CREATE TABLE xcom (
    dag_run_id BLOB NOT NULL,
    task_id TEXT NOT NULL,
    map_index INTEGER NOT NULL,
    key TEXT NOT NULL,
    dag_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    value TEXT NOT NULL,
    mapped_length INTEGER,
    is_dag_result INTEGER NOT NULL CHECK (is_dag_result IN (0, 1)),
    timestamp INTEGER NOT NULL,
    PRIMARY KEY (dag_run_id, task_id, map_index, key),
    FOREIGN KEY (dag_run_id) REFERENCES dag_run (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
) STRICT;

CREATE TABLE rendered_fields (
    task_instance_id BLOB NOT NULL,
    fields TEXT NOT NULL,
    PRIMARY KEY (task_instance_id),
    FOREIGN KEY (task_instance_id) REFERENCES task_instance (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
) STRICT;

CREATE TABLE task_state (
    dag_run_id BLOB NOT NULL,
    task_id TEXT NOT NULL,
    map_index INTEGER NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    expires_at INTEGER,
    PRIMARY KEY (dag_run_id, task_id, map_index, key),
    FOREIGN KEY (dag_run_id) REFERENCES dag_run (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
) STRICT;

CREATE TABLE asset_state (
    asset TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    expires_at INTEGER,
    PRIMARY KEY (asset, key)
) STRICT;

-- What is secret is sealed before it comes here.
CREATE TABLE variable (
    key TEXT NOT NULL,
    sealed_value TEXT NOT NULL,
    description TEXT,
    PRIMARY KEY (key)
) STRICT;

CREATE TABLE connection (
    conn_id TEXT NOT NULL,
    conn_type TEXT NOT NULL,
    description TEXT,
    host TEXT,
    schema_name TEXT,
    login TEXT,
    sealed_password TEXT,
    port INTEGER,
    sealed_extra TEXT,
    PRIMARY KEY (conn_id)
) STRICT;

CREATE TABLE asset (
    id BLOB NOT NULL,
    name TEXT NOT NULL,
    uri TEXT NOT NULL,
    group_name TEXT NOT NULL,
    extra TEXT NOT NULL,
    is_active INTEGER NOT NULL CHECK (is_active IN (0, 1)),
    PRIMARY KEY (id),
    UNIQUE (name, uri)
) STRICT;
CREATE INDEX asset_by_uri ON asset (uri);

CREATE TABLE asset_reference (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    dag_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    task_id TEXT,
    name TEXT NOT NULL,
    uri TEXT,
    FOREIGN KEY (dag_id) REFERENCES dag (dag_id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
) STRICT;
CREATE INDEX asset_reference_by_dag ON asset_reference (dag_id);
CREATE INDEX asset_reference_by_name ON asset_reference (name, kind);

CREATE TABLE asset_event (
    id BLOB NOT NULL,
    asset_id BLOB NOT NULL,
    timestamp INTEGER NOT NULL,
    extra TEXT NOT NULL,
    source_dag_id TEXT,
    source_run_id TEXT,
    source_task_id TEXT,
    source_map_index INTEGER NOT NULL,
    source_aliases TEXT NOT NULL,
    partition_key TEXT,
    PRIMARY KEY (id)
) STRICT;
CREATE INDEX asset_event_by_asset ON asset_event (asset_id, timestamp);
CREATE INDEX asset_event_by_timestamp ON asset_event (timestamp);

CREATE TABLE asset_event_alias (
    alias TEXT NOT NULL,
    event_id BLOB NOT NULL,
    PRIMARY KEY (alias, event_id),
    FOREIGN KEY (event_id) REFERENCES asset_event (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
) STRICT, WITHOUT ROWID;

CREATE TABLE queued_asset_event (
    dag_id TEXT NOT NULL,
    asset_id BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (dag_id, asset_id),
    FOREIGN KEY (dag_id) REFERENCES dag (dag_id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
) STRICT, WITHOUT ROWID;

CREATE TABLE consumed_event (
    dag_run_id BLOB NOT NULL,
    event_id BLOB NOT NULL,
    PRIMARY KEY (dag_run_id, event_id),
    FOREIGN KEY (dag_run_id) REFERENCES dag_run (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
) STRICT, WITHOUT ROWID;

CREATE TABLE task_trigger (
    id BLOB NOT NULL,
    task_instance_id BLOB NOT NULL,
    classpath TEXT NOT NULL,
    kwargs TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    lease_attempt_id BLOB,
    lease_expires_at INTEGER,
    PRIMARY KEY (id),
    FOREIGN KEY (task_instance_id) REFERENCES task_instance (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
) STRICT;
CREATE INDEX task_trigger_by_task_instance ON task_trigger (task_instance_id);
CREATE INDEX task_trigger_free ON task_trigger (created_at) WHERE lease_attempt_id IS NULL;
CREATE INDEX task_trigger_lease ON task_trigger (lease_expires_at) WHERE lease_attempt_id IS NOT NULL;
CREATE INDEX task_trigger_held ON task_trigger (lease_attempt_id) WHERE lease_attempt_id IS NOT NULL;

CREATE TABLE callback (
    id BLOB NOT NULL,
    state TEXT NOT NULL,
    bundle_name TEXT NOT NULL,
    bundle_version TEXT,
    relative_fileloc TEXT NOT NULL,
    dag_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    task_instance_id BLOB,
    request TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    lease_attempt_id BLOB,
    lease_expires_at INTEGER,
    error TEXT,
    PRIMARY KEY (id)
) STRICT;
CREATE INDEX callback_open ON callback (created_at, id) WHERE state IN ('queued', 'running');

CREATE TABLE hitl (
    task_instance_id BLOB NOT NULL,
    detail TEXT NOT NULL,
    response TEXT,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (task_instance_id),
    FOREIGN KEY (task_instance_id) REFERENCES task_instance (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
) STRICT;

CREATE TABLE component (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    heartbeat_at INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
