-- The first schema, for PostgreSQL. Names are compared by their bytes (COLLATE "C"), so that listings sort alike on
-- every database; JSON is `json` and not `jsonb`, which could not keep a NUL or the order of keys in what tasks leave.

-- Bundles and the newest version of each that was taken in.
CREATE TABLE bundle (
    name text COLLATE "C" NOT NULL,
    current_version text COLLATE "C" NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (name)
);

-- Serialized DAGs by the hash of their canonical form; versions point at them by hash.
CREATE TABLE serialized_dag (
    hash text COLLATE "C" NOT NULL,
    json text NOT NULL,
    PRIMARY KEY (hash)
);

CREATE TABLE dag (
    dag_id text COLLATE "C" NOT NULL,
    dag_display_name text COLLATE "C",
    bundle_name text COLLATE "C" NOT NULL,
    bundle_version text COLLATE "C",
    relative_fileloc text COLLATE "C" NOT NULL,
    current_version_id uuid NOT NULL,
    is_paused boolean NOT NULL,
    is_stale boolean NOT NULL,
    has_import_errors boolean NOT NULL,
    description text,
    owners text COLLATE "C" NOT NULL,
    timetable_summary text,
    timetable_description text,
    is_scheduled boolean NOT NULL,
    max_active_runs bigint NOT NULL,
    max_active_tasks bigint NOT NULL,
    max_consecutive_failed_dag_runs bigint NOT NULL,
    next_run_after timestamptz,
    next_run_logical_date timestamptz,
    next_run_data_interval_start timestamptz,
    next_run_data_interval_end timestamptz,
    next_run_partition_key text,
    asset_expression json NOT NULL,
    last_parsed_at timestamptz NOT NULL,
    last_parse_duration double precision NOT NULL,
    PRIMARY KEY (dag_id)
);
CREATE INDEX dag_by_file ON dag (bundle_name, relative_fileloc);
CREATE INDEX dag_due ON dag (next_run_after, dag_id) WHERE NOT is_paused AND NOT is_stale AND next_run_after IS NOT NULL;

CREATE TABLE dag_tag (
    dag_id text COLLATE "C" NOT NULL,
    tag text COLLATE "C" NOT NULL,
    PRIMARY KEY (dag_id, tag),
    FOREIGN KEY (dag_id) REFERENCES dag (dag_id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX dag_tag_by_tag ON dag_tag (tag);

CREATE TABLE dag_version (
    id uuid NOT NULL,
    dag_id text COLLATE "C" NOT NULL,
    version_number bigint NOT NULL,
    bundle_name text COLLATE "C" NOT NULL,
    bundle_version text COLLATE "C",
    hash text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (dag_id, version_number),
    FOREIGN KEY (dag_id) REFERENCES dag (dag_id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);

CREATE TABLE import_error (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    bundle_name text COLLATE "C" NOT NULL,
    filename text COLLATE "C" NOT NULL,
    stack_trace text NOT NULL,
    timestamp timestamptz NOT NULL
);
CREATE INDEX import_error_by_file ON import_error (bundle_name, filename);

CREATE TABLE dag_run (
    id uuid NOT NULL,
    dag_id text COLLATE "C" NOT NULL,
    run_id text COLLATE "C" NOT NULL,
    run_type text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL,
    logical_date timestamptz,
    data_interval_start timestamptz,
    data_interval_end timestamptz,
    run_after timestamptz NOT NULL,
    queued_at timestamptz NOT NULL,
    start_date timestamptz,
    end_date timestamptz,
    conf json NOT NULL,
    triggered_by text COLLATE "C",
    triggering_user text,
    dag_version_id uuid NOT NULL,
    bundle_version text COLLATE "C",
    clear_number bigint NOT NULL,
    backfill_id uuid,
    partition_key text,
    note text,
    unfinished_count bigint NOT NULL,
    under_way_count bigint NOT NULL,
    is_expanded boolean NOT NULL,
    is_dirty boolean NOT NULL,
    due_at timestamptz,
    last_scheduling_decision timestamptz,
    change_seq bigint NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (dag_id, run_id),
    UNIQUE (dag_id, logical_date),
    FOREIGN KEY (dag_id) REFERENCES dag (dag_id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX dag_run_by_run_after ON dag_run (dag_id, run_after, id);
CREATE INDEX dag_run_by_state ON dag_run (dag_id, state);

-- Each of these holds only what waits for one kind of attention, so that a pass costs what changed and not what exists.
CREATE INDEX dag_run_queued ON dag_run (run_after, id) WHERE state = 'queued';
CREATE INDEX dag_run_dirty ON dag_run (id) WHERE state = 'running' AND is_dirty;
CREATE INDEX dag_run_due ON dag_run (due_at) WHERE state = 'running' AND due_at IS NOT NULL;
CREATE INDEX dag_run_unfinished ON dag_run (dag_id, bundle_version) WHERE state IN ('queued', 'running');

CREATE TABLE task_tally (
    dag_run_id uuid NOT NULL,
    task_id text COLLATE "C" NOT NULL,
    expanded_length bigint,
    own json NOT NULL,
    upstream json NOT NULL,
    PRIMARY KEY (dag_run_id, task_id),
    FOREIGN KEY (dag_run_id) REFERENCES dag_run (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);

-- run_after repeats the run's, which never changes, so that the heaviest of the earliest run is found by one index.
CREATE TABLE task_instance (
    id uuid NOT NULL,
    dag_run_id uuid NOT NULL,
    dag_id text COLLATE "C" NOT NULL,
    run_id text COLLATE "C" NOT NULL,
    task_id text COLLATE "C" NOT NULL,
    map_index bigint NOT NULL,
    state text COLLATE "C" NOT NULL,
    accounted_state text COLLATE "C" NOT NULL,
    is_dirty boolean NOT NULL,
    change_seq bigint NOT NULL,
    try_number bigint NOT NULL,
    max_tries bigint NOT NULL,
    epoch bigint NOT NULL,
    lease_attempt_id uuid,
    lease_expires_at timestamptz,
    scheduled_at timestamptz,
    queued_at timestamptz,
    resend_at timestamptz,
    send_count bigint NOT NULL,
    start_date timestamptz,
    end_date timestamptz,
    due_at timestamptz,
    pool text COLLATE "C" NOT NULL,
    pool_slots bigint NOT NULL,
    queue text COLLATE "C" NOT NULL,
    priority_weight bigint NOT NULL,
    executor text,
    operator text NOT NULL,
    operator_name text,
    task_display_name text,
    rendered_map_index text,
    hostname text,
    pid bigint,
    next_method text,
    next_kwargs json NOT NULL,
    trigger_id uuid,
    retry_delay_override double precision,
    retry_reason text,
    dag_version_id uuid NOT NULL,
    note text,
    updated_at timestamptz NOT NULL,
    run_after timestamptz NOT NULL,
    followed_until timestamptz,
    PRIMARY KEY (id),
    UNIQUE (dag_run_id, task_id, map_index),
    FOREIGN KEY (dag_run_id) REFERENCES dag_run (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);
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
    id uuid NOT NULL,
    dag_run_id uuid NOT NULL,
    dag_id text COLLATE "C" NOT NULL,
    run_id text COLLATE "C" NOT NULL,
    task_id text COLLATE "C" NOT NULL,
    map_index bigint NOT NULL,
    state text COLLATE "C" NOT NULL,
    accounted_state text COLLATE "C" NOT NULL,
    is_dirty boolean NOT NULL,
    change_seq bigint NOT NULL,
    try_number bigint NOT NULL,
    max_tries bigint NOT NULL,
    epoch bigint NOT NULL,
    lease_attempt_id uuid,
    lease_expires_at timestamptz,
    scheduled_at timestamptz,
    queued_at timestamptz,
    resend_at timestamptz,
    send_count bigint NOT NULL,
    start_date timestamptz,
    end_date timestamptz,
    due_at timestamptz,
    pool text COLLATE "C" NOT NULL,
    pool_slots bigint NOT NULL,
    queue text COLLATE "C" NOT NULL,
    priority_weight bigint NOT NULL,
    executor text,
    operator text NOT NULL,
    operator_name text,
    task_display_name text,
    rendered_map_index text,
    hostname text,
    pid bigint,
    next_method text,
    next_kwargs json NOT NULL,
    trigger_id uuid,
    retry_delay_override double precision,
    retry_reason text,
    dag_version_id uuid NOT NULL,
    note text,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (id, try_number),
    FOREIGN KEY (id) REFERENCES task_instance (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);

CREATE TABLE task_reschedule (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_instance_id uuid NOT NULL,
    try_number bigint NOT NULL,
    start_date timestamptz NOT NULL,
    end_date timestamptz NOT NULL,
    reschedule_date timestamptz NOT NULL,
    FOREIGN KEY (task_instance_id) REFERENCES task_instance (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX task_reschedule_by_try ON task_reschedule (task_instance_id, try_number, start_date);

CREATE TABLE pool (
    name text COLLATE "C" NOT NULL,
    slots bigint NOT NULL,
    description text,
    include_deferred boolean NOT NULL,
    PRIMARY KEY (name)
);

CREATE TABLE xcom (
    dag_run_id uuid NOT NULL,
    task_id text COLLATE "C" NOT NULL,
    map_index bigint NOT NULL,
    key text COLLATE "C" NOT NULL,
    dag_id text COLLATE "C" NOT NULL,
    run_id text COLLATE "C" NOT NULL,
    value json NOT NULL,
    mapped_length bigint,
    is_dag_result boolean NOT NULL,
    timestamp timestamptz NOT NULL,
    PRIMARY KEY (dag_run_id, task_id, map_index, key),
    FOREIGN KEY (dag_run_id) REFERENCES dag_run (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);

CREATE TABLE rendered_fields (
    task_instance_id uuid NOT NULL,
    fields json NOT NULL,
    PRIMARY KEY (task_instance_id),
    FOREIGN KEY (task_instance_id) REFERENCES task_instance (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);

CREATE TABLE task_state (
    dag_run_id uuid NOT NULL,
    task_id text COLLATE "C" NOT NULL,
    map_index bigint NOT NULL,
    key text COLLATE "C" NOT NULL,
    value json NOT NULL,
    expires_at timestamptz,
    PRIMARY KEY (dag_run_id, task_id, map_index, key),
    FOREIGN KEY (dag_run_id) REFERENCES dag_run (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);

CREATE TABLE asset_state (
    asset text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    value json NOT NULL,
    expires_at timestamptz,
    PRIMARY KEY (asset, key)
);

-- What is secret is sealed before it comes here.
CREATE TABLE variable (
    key text COLLATE "C" NOT NULL,
    sealed_value text NOT NULL,
    description text,
    PRIMARY KEY (key)
);

CREATE TABLE connection (
    conn_id text COLLATE "C" NOT NULL,
    conn_type text NOT NULL,
    description text,
    host text,
    schema_name text,
    login text,
    sealed_password text,
    port bigint,
    sealed_extra text,
    PRIMARY KEY (conn_id)
);

CREATE TABLE asset (
    id uuid NOT NULL,
    name text COLLATE "C" NOT NULL,
    uri text COLLATE "C" NOT NULL,
    group_name text NOT NULL,
    extra json NOT NULL,
    is_active boolean NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (name, uri)
);
CREATE INDEX asset_by_uri ON asset (uri);

CREATE TABLE asset_reference (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dag_id text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    task_id text COLLATE "C",
    name text COLLATE "C" NOT NULL,
    uri text COLLATE "C",
    FOREIGN KEY (dag_id) REFERENCES dag (dag_id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX asset_reference_by_dag ON asset_reference (dag_id);
CREATE INDEX asset_reference_by_name ON asset_reference (name, kind);

CREATE TABLE asset_event (
    id uuid NOT NULL,
    asset_id uuid NOT NULL,
    timestamp timestamptz NOT NULL,
    extra json NOT NULL,
    source_dag_id text COLLATE "C",
    source_run_id text COLLATE "C",
    source_task_id text COLLATE "C",
    source_map_index bigint NOT NULL,
    source_aliases json NOT NULL,
    partition_key text,
    PRIMARY KEY (id)
);
CREATE INDEX asset_event_by_asset ON asset_event (asset_id, timestamp);
CREATE INDEX asset_event_by_timestamp ON asset_event (timestamp);

CREATE TABLE asset_event_alias (
    alias text COLLATE "C" NOT NULL,
    event_id uuid NOT NULL,
    PRIMARY KEY (alias, event_id),
    FOREIGN KEY (event_id) REFERENCES asset_event (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);

CREATE TABLE queued_asset_event (
    dag_id text COLLATE "C" NOT NULL,
    asset_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (dag_id, asset_id),
    FOREIGN KEY (dag_id) REFERENCES dag (dag_id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);

CREATE TABLE consumed_event (
    dag_run_id uuid NOT NULL,
    event_id uuid NOT NULL,
    PRIMARY KEY (dag_run_id, event_id),
    FOREIGN KEY (dag_run_id) REFERENCES dag_run (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);

CREATE TABLE task_trigger (
    id uuid NOT NULL,
    task_instance_id uuid NOT NULL,
    classpath text NOT NULL,
    kwargs json NOT NULL,
    created_at timestamptz NOT NULL,
    epoch bigint NOT NULL,
    lease_attempt_id uuid,
    lease_expires_at timestamptz,
    PRIMARY KEY (id),
    FOREIGN KEY (task_instance_id) REFERENCES task_instance (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX task_trigger_by_task_instance ON task_trigger (task_instance_id);
CREATE INDEX task_trigger_free ON task_trigger (created_at) WHERE lease_attempt_id IS NULL;
CREATE INDEX task_trigger_lease ON task_trigger (lease_expires_at) WHERE lease_attempt_id IS NOT NULL;
CREATE INDEX task_trigger_held ON task_trigger (lease_attempt_id) WHERE lease_attempt_id IS NOT NULL;

CREATE TABLE callback (
    id uuid NOT NULL,
    state text COLLATE "C" NOT NULL,
    bundle_name text COLLATE "C" NOT NULL,
    bundle_version text COLLATE "C",
    relative_fileloc text NOT NULL,
    dag_id text COLLATE "C" NOT NULL,
    run_id text COLLATE "C" NOT NULL,
    task_instance_id uuid,
    request json NOT NULL,
    created_at timestamptz NOT NULL,
    epoch bigint NOT NULL,
    lease_attempt_id uuid,
    lease_expires_at timestamptz,
    error text,
    PRIMARY KEY (id)
);
CREATE INDEX callback_open ON callback (created_at, id) WHERE state IN ('queued', 'running');

CREATE TABLE hitl (
    task_instance_id uuid NOT NULL,
    detail json NOT NULL,
    response json,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (task_instance_id),
    FOREIGN KEY (task_instance_id) REFERENCES task_instance (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);

CREATE TABLE component (
    kind text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    heartbeat_at timestamptz NOT NULL,
    started_at timestamptz NOT NULL,
    PRIMARY KEY (kind, name)
);
