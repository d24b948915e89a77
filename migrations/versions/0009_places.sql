-- Where replicas run: other hosts, clusters, hosts behind SSH.

-- What the backend told of an attempt beside its state: job id, why it waits, when it may start, on which nodes it runs.
ALTER TABLE attempts ADD COLUMN told JSONB;
-- the cluster's name for it, which users may use instead of ours
ALTER TABLE attempts ADD COLUMN job_id TEXT;
CREATE INDEX ix_attempts_job ON attempts (job_id) WHERE job_id IS NOT NULL;

-- Options of backends that this key's launches carry: {"slurm": {"account": "..."}}
ALTER TABLE keys ADD COLUMN backend_options JSONB DEFAULT '{}'::jsonb NOT NULL;

-- What tells a host that joins whether it has the same engine key and secret key as the rest; not the keys.
ALTER TABLE stack ADD COLUMN key_marks JSONB DEFAULT '{}'::jsonb NOT NULL;

-- Pools that the workers of a host serve; NULL: all of them.
ALTER TABLE nodes ADD COLUMN pools TEXT[];

-- The local ends by which one host of ours reaches a replica on a network that it cannot see.
CREATE TABLE tunnels (
    attempt_id BIGINT NOT NULL,
    node TEXT NOT NULL,
    port INTEGER NOT NULL,
    to_host TEXT NOT NULL,
    to_port INTEGER NOT NULL,
    state TEXT DEFAULT 'opening' NOT NULL,
    message TEXT DEFAULT '' NOT NULL,
    since TIMESTAMP WITH TIME ZONE DEFAULT hostler_now() NOT NULL,
    CONSTRAINT pk_tunnels PRIMARY KEY (attempt_id, node),
    CONSTRAINT fk_tunnels_attempt_id FOREIGN KEY(attempt_id) REFERENCES attempts (id) ON DELETE CASCADE,
    CONSTRAINT ck_tunnels_state_known CHECK (state IN ('opening', 'up', 'down')),
    CONSTRAINT ck_tunnels_port_range CHECK (port BETWEEN 1 AND 65535)
);
CREATE INDEX ix_tunnels_node ON tunnels (node);

-- Who reads the output of an attempt that the reader's host has no file of, and how far it was copied for them.
CREATE TABLE log_readers (
    attempt_id BIGINT NOT NULL,
    wanted_until TIMESTAMP WITH TIME ZONE NOT NULL,
    place TEXT DEFAULT '' NOT NULL,
    copied_at TIMESTAMP WITH TIME ZONE,
    message TEXT DEFAULT '' NOT NULL,
    CONSTRAINT pk_log_readers PRIMARY KEY (attempt_id),
    CONSTRAINT fk_log_readers_attempt_id FOREIGN KEY(attempt_id) REFERENCES attempts (id) ON DELETE CASCADE
);
CREATE INDEX ix_log_readers_until ON log_readers (wanted_until);

-- The copied output; bounded per attempt, and gone when nobody reads it any more.
CREATE TABLE log_chunks (
    attempt_id BIGINT NOT NULL,
    number BIGINT NOT NULL,
    place TEXT NOT NULL,
    data BYTEA NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT hostler_now() NOT NULL,
    CONSTRAINT pk_log_chunks PRIMARY KEY (attempt_id, number),
    CONSTRAINT fk_log_chunks_attempt_id FOREIGN KEY(attempt_id) REFERENCES log_readers (attempt_id) ON DELETE CASCADE
);
