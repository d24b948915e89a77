-- The schema of 0.1.0. Frozen: later changes are later migrations.

CREATE TABLE clock (
    single BOOLEAN DEFAULT true NOT NULL,
    shift INTERVAL DEFAULT interval '0' NOT NULL,
    CONSTRAINT pk_clock PRIMARY KEY (single),
    CONSTRAINT ck_clock_one_row CHECK (single)
);

INSERT INTO clock DEFAULT VALUES;

-- STABLE, so that an index can be searched with it. Tests move `clock.shift`; nothing else does.
CREATE FUNCTION hostler_now() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS
$$ SELECT statement_timestamp() + (SELECT shift FROM clock) $$;

CREATE TABLE backends (
    name TEXT NOT NULL,
    summary TEXT DEFAULT '' NOT NULL,
    options_schema JSONB DEFAULT '{}'::jsonb NOT NULL,
    host_bound BOOLEAN NOT NULL,
    serves_http BOOLEAN NOT NULL,
    lacks TEXT[] DEFAULT '{}'::text[] NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT hostler_now() NOT NULL,
    CONSTRAINT pk_backends PRIMARY KEY (name)
);

CREATE TABLE idempotency (
    owner TEXT NOT NULL,
    method TEXT NOT NULL,
    path TEXT NOT NULL,
    key TEXT NOT NULL,
    body_hash TEXT NOT NULL,
    outcome JSONB DEFAULT '{}'::jsonb NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT hostler_now() NOT NULL,
    CONSTRAINT pk_idempotency PRIMARY KEY (owner, method, path, key)
);
CREATE INDEX ix_idempotency_created_at ON idempotency (created_at);

CREATE TABLE keys (
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    hash TEXT NOT NULL,
    prefix TEXT NOT NULL,
    role TEXT NOT NULL,
    models TEXT[],
    limits JSONB DEFAULT '{}'::jsonb NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT hostler_now() NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE,
    revoked_at TIMESTAMP WITH TIME ZONE,
    last_used_at TIMESTAMP WITH TIME ZONE,
    created_by TEXT,
    CONSTRAINT pk_keys PRIMARY KEY (id),
    CONSTRAINT ck_keys_role_known CHECK (role IN ('read', 'infer', 'register', 'operate', 'admin')),
    CONSTRAINT ck_keys_hash_is_sha256 CHECK (hash ~ '^[0-9A-F]{64}$'),
    CONSTRAINT ck_keys_id_is_hex CHECK (id ~ '^[0-9a-f]{12}$')
);
CREATE UNIQUE INDEX uq_keys_hash ON keys (hash);
CREATE UNIQUE INDEX uq_keys_name_live ON keys (name) WHERE revoked_at IS NULL;

CREATE TABLE lifecycle_edges (
    from_state TEXT NOT NULL,
    to_state TEXT NOT NULL,
    CONSTRAINT pk_lifecycle_edges PRIMARY KEY (from_state, to_state)
);

CREATE TABLE models (
    name TEXT NOT NULL,
    engine TEXT NOT NULL,
    source TEXT DEFAULT '' NOT NULL,
    format TEXT DEFAULT '' NOT NULL,
    defaults JSONB DEFAULT '{}'::jsonb NOT NULL,
    aliases TEXT[] DEFAULT '{}'::text[] NOT NULL,
    owner TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT hostler_now() NOT NULL,
    CONSTRAINT pk_models PRIMARY KEY (name),
    CONSTRAINT ck_models_name_length CHECK (length(name) BETWEEN 1 AND 200)
);
CREATE INDEX ix_models_aliases ON models USING gin (aliases);

CREATE TABLE nodes (
    name TEXT NOT NULL,
    address TEXT DEFAULT '127.0.0.1' NOT NULL,
    cpus INTEGER,
    memory_bytes BIGINT,
    gpus JSONB DEFAULT '[]'::jsonb NOT NULL,
    boot_id TEXT,
    version TEXT DEFAULT '' NOT NULL,
    attributes JSONB DEFAULT '{}'::jsonb NOT NULL,
    canary_at TIMESTAMP WITH TIME ZONE,
    first_seen_at TIMESTAMP WITH TIME ZONE DEFAULT hostler_now() NOT NULL,
    heartbeat_at TIMESTAMP WITH TIME ZONE DEFAULT hostler_now() NOT NULL,
    CONSTRAINT pk_nodes PRIMARY KEY (name)
);

CREATE TABLE stack (
    single BOOLEAN DEFAULT true NOT NULL,
    id TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT hostler_now() NOT NULL,
    CONSTRAINT pk_stack PRIMARY KEY (single),
    CONSTRAINT ck_stack_one_row CHECK (single)
);

CREATE TABLE sweeps (
    name TEXT NOT NULL,
    tick BIGINT NOT NULL,
    worker TEXT NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE DEFAULT hostler_now() NOT NULL,
    finished_at TIMESTAMP WITH TIME ZONE,
    result JSONB DEFAULT '{}'::jsonb NOT NULL,
    CONSTRAINT pk_sweeps PRIMARY KEY (name, tick)
);
CREATE INDEX ix_sweeps_started_at ON sweeps (started_at);

CREATE TABLE units (
    kind TEXT NOT NULL,
    scope TEXT NOT NULL,
    number INTEGER NOT NULL,
    lease_id BIGINT,
    retired BOOLEAN DEFAULT false NOT NULL,
    last_freed_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_units PRIMARY KEY (kind, scope, number),
    CONSTRAINT ck_units_kind_known CHECK (kind IN ('slot', 'pool_gpu', 'port', 'gpu')),
    CONSTRAINT ck_units_number_not_negative CHECK (number >= 0)
);
CREATE INDEX ix_units_free ON units (kind, scope, last_freed_at NULLS FIRST, number) WHERE lease_id IS NULL AND NOT retired;
CREATE UNIQUE INDEX uq_units_lease ON units (lease_id) WHERE lease_id IS NOT NULL;

CREATE TABLE workers (
    id TEXT NOT NULL,
    node TEXT NOT NULL,
    role TEXT NOT NULL,
    pid INTEGER NOT NULL,
    queues TEXT[] DEFAULT '{}'::text[] NOT NULL,
    concurrency INTEGER DEFAULT 1 NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE DEFAULT hostler_now() NOT NULL,
    heartbeat_at TIMESTAMP WITH TIME ZONE DEFAULT hostler_now() NOT NULL,
    consumed_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_workers PRIMARY KEY (id)
);
CREATE INDEX ix_workers_node_role ON workers (node, role);

CREATE TABLE events (
    id BIGINT GENERATED BY DEFAULT AS IDENTITY,
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    at TIMESTAMP WITH TIME ZONE DEFAULT hostler_now() NOT NULL,
    kind TEXT NOT NULL,
    replica_id TEXT,
    attempt INTEGER,
    task_id TEXT,
    pool TEXT,
    node TEXT,
    actor TEXT NOT NULL,
    cause TEXT NOT NULL,
    from_state TEXT,
    to_state TEXT,
    reason TEXT,
    message TEXT DEFAULT '' NOT NULL,
    request_id TEXT DEFAULT '' NOT NULL,
    data JSONB,
    CONSTRAINT pk_events PRIMARY KEY (id),
    CONSTRAINT fk_events_from_state_to_state FOREIGN KEY(from_state, to_state) REFERENCES lifecycle_edges (from_state, to_state),
    CONSTRAINT ck_events_starts_pending CHECK (from_state IS NOT NULL OR to_state IS NULL OR to_state = 'pending'),
    CONSTRAINT ck_events_reason_known CHECK (reason IN ('invalid_config', 'no_capacity', 'queue_timeout', 'launch_failed', 'process_exited', 'out_of_memory', 'readiness_timeout', 'health_failed', 'diagnostics_failed', 'preempted', 'walltime', 'lifetime_expired', 'node_lost', 'backend_error', 'cancelled'))
);
CREATE INDEX ix_events_at ON events (at);
CREATE INDEX ix_events_order ON events (xid, id);
CREATE INDEX ix_events_replica ON events (replica_id, xid, id);
CREATE INDEX ix_events_task ON events (task_id, xid, id) WHERE task_id IS NOT NULL;

CREATE TABLE pools (
    name TEXT NOT NULL,
    backend TEXT NOT NULL,
    options JSONB DEFAULT '{}'::jsonb NOT NULL,
    slots INTEGER NOT NULL,
    gpus INTEGER,
    labels JSONB DEFAULT '{}'::jsonb NOT NULL,
    defaults JSONB DEFAULT '{}'::jsonb NOT NULL,
    state TEXT DEFAULT 'active' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT hostler_now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT hostler_now() NOT NULL,
    CONSTRAINT pk_pools PRIMARY KEY (name),
    CONSTRAINT ck_pools_state_known CHECK (state IN ('active', 'draining')),
    CONSTRAINT ck_pools_name_form CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    CONSTRAINT ck_pools_slots_range CHECK (slots BETWEEN 0 AND 100000),
    CONSTRAINT ck_pools_gpus_range CHECK (gpus BETWEEN 0 AND 100000),
    CONSTRAINT fk_pools_backend FOREIGN KEY(backend) REFERENCES backends (name)
);

CREATE TABLE replicas (
    id TEXT NOT NULL,
    owner TEXT NOT NULL,
    pool TEXT NOT NULL,
    backend TEXT NOT NULL,
    engine TEXT NOT NULL,
    server_mode TEXT NOT NULL,
    model_name TEXT NOT NULL,
    spec JSONB DEFAULT '{}'::jsonb NOT NULL,
    environment BYTEA,
    labels JSONB DEFAULT '{}'::jsonb NOT NULL,
    priority SMALLINT NOT NULL,
    desired_state TEXT DEFAULT 'running' NOT NULL,
    state TEXT DEFAULT 'pending' NOT NULL,
    reason TEXT,
    message TEXT DEFAULT '' NOT NULL,
    attempt INTEGER DEFAULT 1 NOT NULL,
    node TEXT,
    host TEXT,
    port INTEGER,
    base_url TEXT,
    timestamps JSONB DEFAULT '{}'::jsonb NOT NULL,
    diagnostics JSONB,
    last_health JSONB,
    check_failures INTEGER DEFAULT 0 NOT NULL,
    grace_s INTEGER DEFAULT 30 NOT NULL,
    state_since TIMESTAMP WITH TIME ZONE DEFAULT hostler_now() NOT NULL,
    next_check_at TIMESTAMP WITH TIME ZONE,
    deadline_at TIMESTAMP WITH TIME ZONE,
    lifetime_ends_at TIMESTAMP WITH TIME ZONE,
    released_at TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT hostler_now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT hostler_now() NOT NULL,
    version BIGINT DEFAULT 1 NOT NULL,
    CONSTRAINT pk_replicas PRIMARY KEY (id),
    CONSTRAINT ck_replicas_state_known CHECK (state IN ('pending', 'scheduling', 'preparing', 'starting', 'waiting_for_ready', 'ready', 'unhealthy', 'unreachable', 'stopping', 'stopped', 'failed')),
    CONSTRAINT ck_replicas_reason_known CHECK (reason IN ('invalid_config', 'no_capacity', 'queue_timeout', 'launch_failed', 'process_exited', 'out_of_memory', 'readiness_timeout', 'health_failed', 'diagnostics_failed', 'preempted', 'walltime', 'lifetime_expired', 'node_lost', 'backend_error', 'cancelled')),
    CONSTRAINT ck_replicas_server_mode_known CHECK (server_mode IN ('replica', 'replica_mock', 'api_gateway', 'api_gateway_mock', 'platform_workload', 'platform_workload_mock')),
    CONSTRAINT ck_replicas_desired_state_known CHECK (desired_state IN ('running', 'stopped')),
    CONSTRAINT ck_replicas_id_is_hex CHECK (id ~ '^[0-9a-f]{12}$'),
    CONSTRAINT ck_replicas_failed_has_reason CHECK (state <> 'failed' OR reason IS NOT NULL),
    CONSTRAINT ck_replicas_released_is_terminal CHECK (released_at IS NULL OR state IN ('stopped', 'failed')),
    CONSTRAINT ck_replicas_port_range CHECK (port BETWEEN 1 AND 65535),
    CONSTRAINT ck_replicas_priority_range CHECK (priority BETWEEN 0 AND 3),
    CONSTRAINT ck_replicas_attempt_positive CHECK (attempt >= 1),
    CONSTRAINT fk_replicas_owner FOREIGN KEY(owner) REFERENCES keys (id),
    CONSTRAINT fk_replicas_pool FOREIGN KEY(pool) REFERENCES pools (name),
    CONSTRAINT fk_replicas_backend FOREIGN KEY(backend) REFERENCES backends (name)
);
CREATE INDEX ix_replicas_created ON replicas (created_at, id);
CREATE INDEX ix_replicas_deadline ON replicas (deadline_at) WHERE deadline_at IS NOT NULL;
CREATE INDEX ix_replicas_due ON replicas (next_check_at) WHERE released_at IS NULL;
CREATE INDEX ix_replicas_labels ON replicas USING gin (labels jsonb_path_ops);
CREATE INDEX ix_replicas_lifetime ON replicas (lifetime_ends_at) WHERE lifetime_ends_at IS NOT NULL;
CREATE INDEX ix_replicas_model_name ON replicas (model_name, created_at, id);
CREATE INDEX ix_replicas_owner ON replicas (owner, created_at, id);
CREATE INDEX ix_replicas_pool ON replicas (pool, created_at, id);
CREATE INDEX ix_replicas_server_mode ON replicas (server_mode, created_at, id);
CREATE INDEX ix_replicas_state ON replicas (state, created_at, id);
CREATE INDEX ix_replicas_unreleased ON replicas (node, state) WHERE released_at IS NULL;

CREATE TABLE attempts (
    id BIGINT GENERATED BY DEFAULT AS IDENTITY,
    replica_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    pool TEXT NOT NULL,
    backend TEXT NOT NULL,
    node TEXT,
    host TEXT,
    port INTEGER,
    backend_ref JSONB,
    launching_at TIMESTAMP WITH TIME ZONE,
    stop_asked_at TIMESTAMP WITH TIME ZONE,
    ended_at TIMESTAMP WITH TIME ZONE,
    released_at TIMESTAMP WITH TIME ZONE,
    reason TEXT,
    message TEXT DEFAULT '' NOT NULL,
    exit_code INTEGER,
    signal INTEGER,
    log_tail TEXT DEFAULT '' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT hostler_now() NOT NULL,
    CONSTRAINT pk_attempts PRIMARY KEY (id),
    CONSTRAINT ck_attempts_reason_known CHECK (reason IN ('invalid_config', 'no_capacity', 'queue_timeout', 'launch_failed', 'process_exited', 'out_of_memory', 'readiness_timeout', 'health_failed', 'diagnostics_failed', 'preempted', 'walltime', 'lifetime_expired', 'node_lost', 'backend_error', 'cancelled')),
    CONSTRAINT ck_attempts_number_positive CHECK (number >= 1),
    CONSTRAINT fk_attempts_replica_id FOREIGN KEY(replica_id) REFERENCES replicas (id) ON DELETE CASCADE
);
CREATE INDEX ix_attempts_node_open ON attempts (node) WHERE released_at IS NULL;
CREATE UNIQUE INDEX uq_attempts_name ON attempts (name);
CREATE UNIQUE INDEX uq_attempts_replica_number ON attempts (replica_id, number);
CREATE UNIQUE INDEX uq_attempts_replica_open ON attempts (replica_id) WHERE released_at IS NULL;

CREATE TABLE tasks (
    id TEXT NOT NULL,
    seq BIGINT GENERATED BY DEFAULT AS IDENTITY,
    kind TEXT NOT NULL,
    state TEXT DEFAULT 'queued' NOT NULL,
    phase TEXT DEFAULT 'queued' NOT NULL,
    priority SMALLINT NOT NULL,
    pool TEXT NOT NULL,
    node TEXT,
    replica_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    owner TEXT NOT NULL,
    request_id TEXT DEFAULT '' NOT NULL,
    arguments JSONB DEFAULT '{}'::jsonb NOT NULL,
    reason TEXT,
    message TEXT DEFAULT '' NOT NULL,
    result JSONB,
    cancel_asked BOOLEAN DEFAULT false NOT NULL,
    claims INTEGER DEFAULT 0 NOT NULL,
    claimed_by TEXT,
    lease_token UUID,
    lease_expires_at TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT hostler_now() NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE,
    finished_at TIMESTAMP WITH TIME ZONE,
    deadline_at TIMESTAMP WITH TIME ZONE,
    not_before TIMESTAMP WITH TIME ZONE,
    version BIGINT DEFAULT 1 NOT NULL,
    CONSTRAINT pk_tasks PRIMARY KEY (id),
    CONSTRAINT ck_tasks_kind_known CHECK (kind IN ('create', 'stop', 'restart', 'health', 'diagnose')),
    CONSTRAINT ck_tasks_state_known CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    CONSTRAINT ck_tasks_phase_known CHECK (phase IN ('queued', 'claimed', 'launching', 'waiting_for_ready', 'diagnosing', 'probing', 'stopping', 'done')),
    CONSTRAINT ck_tasks_reason_known CHECK (reason IN ('invalid_config', 'no_capacity', 'queue_timeout', 'launch_failed', 'process_exited', 'out_of_memory', 'readiness_timeout', 'health_failed', 'diagnostics_failed', 'preempted', 'walltime', 'lifetime_expired', 'node_lost', 'backend_error', 'cancelled')),
    CONSTRAINT ck_tasks_priority_range CHECK (priority BETWEEN 0 AND 3),
    CONSTRAINT ck_tasks_lease_whole CHECK ((lease_token IS NULL) = (lease_expires_at IS NULL)),
    CONSTRAINT ck_tasks_lease_only_running CHECK (lease_token IS NULL OR state = 'running'),
    CONSTRAINT ck_tasks_finished_when_ended CHECK ((finished_at IS NULL) = (state IN ('queued', 'running'))),
    CONSTRAINT fk_tasks_replica_id FOREIGN KEY(replica_id) REFERENCES replicas (id) ON DELETE CASCADE
);
CREATE INDEX ix_tasks_age ON tasks (seq);
CREATE INDEX ix_tasks_deadline ON tasks (deadline_at) WHERE state IN ('queued', 'running');
CREATE INDEX ix_tasks_holder ON tasks (claimed_by) WHERE lease_token IS NOT NULL;
CREATE INDEX ix_tasks_launch ON tasks (pool, priority, seq) WHERE state = 'queued' AND kind IN ('create', 'restart');
CREATE INDEX ix_tasks_lease ON tasks (lease_expires_at) WHERE lease_expires_at IS NOT NULL;
CREATE INDEX ix_tasks_node ON tasks (node, kind, seq) WHERE state = 'queued' AND node IS NOT NULL;
CREATE INDEX ix_tasks_other ON tasks (pool, kind, seq) WHERE state = 'queued' AND kind NOT IN ('create', 'restart');
CREATE INDEX ix_tasks_replica ON tasks (replica_id, seq);
CREATE INDEX ix_tasks_state ON tasks (state, seq);
CREATE UNIQUE INDEX uq_tasks_open_lifecycle ON tasks (replica_id) WHERE state IN ('queued', 'running') AND kind IN ('create', 'stop', 'restart');

CREATE TABLE leases (
    id BIGINT GENERATED BY DEFAULT AS IDENTITY,
    kind TEXT NOT NULL,
    scope TEXT NOT NULL,
    number INTEGER NOT NULL,
    attempt_id BIGINT,
    holder TEXT NOT NULL,
    acquired_at TIMESTAMP WITH TIME ZONE DEFAULT hostler_now() NOT NULL,
    released_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_leases PRIMARY KEY (id),
    CONSTRAINT ck_leases_live_has_attempt CHECK (released_at IS NOT NULL OR attempt_id IS NOT NULL),
    CONSTRAINT fk_leases_kind_scope_number FOREIGN KEY(kind, scope, number) REFERENCES units (kind, scope, number),
    CONSTRAINT fk_leases_attempt_id FOREIGN KEY(attempt_id) REFERENCES attempts (id) ON DELETE SET NULL
);
CREATE INDEX ix_leases_attempt ON leases (attempt_id);
CREATE INDEX ix_leases_attempt_live ON leases (attempt_id) WHERE released_at IS NULL;
CREATE UNIQUE INDEX uq_leases_live ON leases (kind, scope, number) WHERE released_at IS NULL;

ALTER TABLE units ADD CONSTRAINT fk_units_lease_id
    FOREIGN KEY (lease_id) REFERENCES leases (id) DEFERRABLE INITIALLY DEFERRED;

-- Capacity that was taken away cannot be leased again, whatever a caller believes.
CREATE FUNCTION refuse_retired_unit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM units u
               WHERE u.kind = NEW.kind AND u.scope = NEW.scope AND u.number = NEW.number AND u.retired) THEN
        RAISE EXCEPTION 'unit %/%/% is beyond capacity', NEW.kind, NEW.scope, NEW.number
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER leases_refuse_retired_unit BEFORE INSERT ON leases
    FOR EACH ROW EXECUTE FUNCTION refuse_retired_unit();

-- History is not rewritten. Retention deletes whole old rows, nothing changes one.
CREATE FUNCTION refuse_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are never changed', TG_TABLE_NAME USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER events_append_only BEFORE UPDATE ON events
    FOR EACH ROW EXECUTE FUNCTION refuse_update();

INSERT INTO stack (id) VALUES (substr(md5(random()::text || clock_timestamp()::text || pg_backend_pid()), 1, 8));

INSERT INTO lifecycle_edges (from_state, to_state) VALUES
    ('pending', 'scheduling'),
    ('pending', 'stopping'),
    ('pending', 'stopped'),
    ('pending', 'failed'),
    ('scheduling', 'pending'),
    ('scheduling', 'preparing'),
    ('scheduling', 'stopping'),
    ('scheduling', 'failed'),
    ('preparing', 'pending'),
    ('preparing', 'starting'),
    ('preparing', 'stopping'),
    ('preparing', 'failed'),
    ('starting', 'waiting_for_ready'),
    ('starting', 'unreachable'),
    ('starting', 'stopping'),
    ('starting', 'failed'),
    ('waiting_for_ready', 'ready'),
    ('waiting_for_ready', 'unreachable'),
    ('waiting_for_ready', 'stopping'),
    ('waiting_for_ready', 'failed'),
    ('ready', 'unhealthy'),
    ('ready', 'unreachable'),
    ('ready', 'stopping'),
    ('ready', 'failed'),
    ('unhealthy', 'ready'),
    ('unhealthy', 'unreachable'),
    ('unhealthy', 'stopping'),
    ('unhealthy', 'failed'),
    ('unreachable', 'starting'),
    ('unreachable', 'waiting_for_ready'),
    ('unreachable', 'ready'),
    ('unreachable', 'unhealthy'),
    ('unreachable', 'stopping'),
    ('unreachable', 'failed'),
    ('stopping', 'pending'),
    ('stopping', 'stopped'),
    ('stopping', 'failed'),
    ('stopped', 'pending'),
    ('failed', 'pending');

INSERT INTO backends (name, summary, host_bound, serves_http) VALUES
    ('process', 'a process on the worker''s own host', true, true),
    ('mock', 'nothing runs; delays and failures as told', false, false);

INSERT INTO pools (name, backend, slots) VALUES ('local', 'process', 64), ('mock', 'mock', 20000);

INSERT INTO units (kind, scope, number)
    SELECT 'slot', pools.name, number FROM pools, generate_series(0, pools.slots - 1) AS number;
