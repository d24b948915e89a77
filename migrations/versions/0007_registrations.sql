-- The capability registry: servers that others run and keep registered over a stream that they hold open.

-- A process of the API that holds such streams. It counts up while it lives: one row says it of thousands of streams. Who
-- watches judges by a clock of his own for how long the count stands still, so neither a moved clock nor a database that
-- was away ends a lease.
CREATE TABLE registrars (
    id TEXT NOT NULL,
    node TEXT NOT NULL,
    renewals BIGINT DEFAULT 1 NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE DEFAULT hostler_now() NOT NULL,
    renewed_at TIMESTAMP WITH TIME ZONE DEFAULT hostler_now() NOT NULL,
    CONSTRAINT pk_registrars PRIMARY KEY (id)
);

-- One stream each: who comes back with the same id gets a greater one, and what ends names the one it means. Of the whole
-- stack and not of the id, so that an id whose row was deleted never has an old one again.
CREATE SEQUENCE registration_generations;

CREATE TABLE registrations (
    replica_id TEXT NOT NULL,
    generation BIGINT NOT NULL,
    owner TEXT NOT NULL,
    registrar TEXT,
    node TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    host TEXT NOT NULL,
    port INTEGER NOT NULL,
    addresses TEXT[] NOT NULL,
    address TEXT NOT NULL,
    local BOOLEAN NOT NULL,
    -- not JSONB: it is shown as it was sent
    capabilities JSON DEFAULT '[]'::json NOT NULL,
    health TEXT DEFAULT 'unknown' NOT NULL,
    speaks TEXT,
    message TEXT DEFAULT '' NOT NULL,
    registered_at TIMESTAMP WITH TIME ZONE DEFAULT hostler_now() NOT NULL,
    connected_at TIMESTAMP WITH TIME ZONE DEFAULT hostler_now() NOT NULL,
    checked_at TIMESTAMP WITH TIME ZONE,
    answered_at TIMESTAMP WITH TIME ZONE,
    ended_at TIMESTAMP WITH TIME ZONE,
    end_reason TEXT,
    changed XID8 DEFAULT pg_current_xact_id() NOT NULL,
    CONSTRAINT pk_registrations PRIMARY KEY (replica_id),
    CONSTRAINT fk_registrations_owner FOREIGN KEY(owner) REFERENCES keys (id) ON DELETE CASCADE,
    CONSTRAINT fk_registrations_registrar FOREIGN KEY(registrar) REFERENCES registrars (id) ON DELETE SET NULL,
    CONSTRAINT ck_registrations_health_known CHECK (health IN ('unknown', 'healthy', 'unhealthy')),
    CONSTRAINT ck_registrations_speaks_known CHECK (speaks IN ('http', 'v2', 'other')),
    CONSTRAINT ck_registrations_end_reason_known CHECK (end_reason IN ('closed', 'lapsed', 'key_ended', 'refused', 'removed')),
    CONSTRAINT ck_registrations_ended_has_reason CHECK ((ended_at IS NULL) = (end_reason IS NULL)),
    CONSTRAINT ck_registrations_live_is_held CHECK (ended_at IS NOT NULL OR registrar IS NOT NULL),
    CONSTRAINT ck_registrations_port_range CHECK (port BETWEEN 1 AND 65535),
    CONSTRAINT ck_registrations_address_is_pinned CHECK (address = ANY (addresses)),
    CONSTRAINT ck_registrations_capabilities_are_a_list CHECK (json_typeof(capabilities) = 'array')
);
CREATE INDEX ix_registrations_changed ON registrations (changed);
CREATE INDEX ix_registrations_owner ON registrations (owner);
CREATE INDEX ix_registrations_registrar ON registrations (registrar) WHERE ended_at IS NULL;
CREATE INDEX ix_registrations_port ON registrations (port) WHERE ended_at IS NULL;
CREATE INDEX ix_registrations_ended ON registrations (ended_at) WHERE ended_at IS NOT NULL;

-- Which transaction changed a row last: whoever keeps a copy reads what changed since the oldest one that was open when he
-- read before, and misses nothing that committed late.
CREATE FUNCTION mark_registration_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed = pg_current_xact_id();
    RETURN NEW;
END $$;
CREATE TRIGGER registrations_changed BEFORE UPDATE ON registrations
    FOR EACH ROW EXECUTE FUNCTION mark_registration_changed();
