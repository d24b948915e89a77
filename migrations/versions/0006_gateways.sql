-- Gateways, what each of them may be routing to, and which replicas are given time to finish what is in flight.

CREATE TABLE gateways (
    id TEXT NOT NULL,
    node TEXT NOT NULL,
    pid INTEGER NOT NULL,
    version TEXT DEFAULT '' NOT NULL,
    haproxy_up BOOLEAN DEFAULT false NOT NULL,
    first_seen_at TIMESTAMP WITH TIME ZONE DEFAULT hostler_now() NOT NULL,
    heartbeat_at TIMESTAMP WITH TIME ZONE DEFAULT hostler_now() NOT NULL,
    CONSTRAINT pk_gateways PRIMARY KEY (id)
);

-- Written before the server is routed, deleted after HAProxy confirmed that it has it no more: until then nobody else is
-- given that port. No reference to replicas: it outlives theirs.
CREATE TABLE gateway_servers (
    gateway TEXT NOT NULL,
    server TEXT NOT NULL,
    replica_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    node TEXT,
    port INTEGER NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT hostler_now() NOT NULL,
    idle_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_gateway_servers PRIMARY KEY (gateway, server),
    CONSTRAINT ck_gateway_servers_port_range CHECK (port BETWEEN 1 AND 65535),
    CONSTRAINT fk_gateway_servers_gateway FOREIGN KEY(gateway) REFERENCES gateways (id) ON DELETE CASCADE
);
CREATE INDEX ix_gateway_servers_replica ON gateway_servers (replica_id, attempt);
CREATE INDEX ix_gateway_servers_port ON gateway_servers (node, port);

-- Until then nobody ends the attempt, unless by force. The row goes when nothing is in flight any more.
CREATE TABLE drains (
    replica_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    seconds DOUBLE PRECISION NOT NULL,
    until TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_drains PRIMARY KEY (replica_id),
    CONSTRAINT ck_drains_seconds_positive CHECK (seconds > 0),
    CONSTRAINT fk_drains_replica_id FOREIGN KEY(replica_id) REFERENCES replicas (id) ON DELETE CASCADE
);
