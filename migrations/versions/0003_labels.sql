-- Labels as rows: how many replicas carry one is counted in the index, where the replicas' own rows (GIN names them, and
-- each must be fetched to be sure) cost a page each. Triggers write it, so that 0.1.0 does too.
CREATE TABLE replica_labels (
    replica_id TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    CONSTRAINT pk_replica_labels PRIMARY KEY (replica_id, name),
    CONSTRAINT fk_replica_labels_replica_id FOREIGN KEY(replica_id) REFERENCES replicas (id) ON DELETE CASCADE
);
CREATE INDEX ix_replica_labels_pair ON replica_labels (name, value);

CREATE FUNCTION keep_replica_labels() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        DELETE FROM replica_labels WHERE replica_id = NEW.id;
    END IF;
    INSERT INTO replica_labels (replica_id, name, value)
    SELECT NEW.id, label.key, label.value #>> '{}' FROM jsonb_each(NEW.labels) AS label
    WHERE jsonb_typeof(label.value) = 'string';
    RETURN NULL;
END $$;
CREATE TRIGGER replicas_label_new AFTER INSERT ON replicas
    FOR EACH ROW WHEN (NEW.labels <> '{}') EXECUTE FUNCTION keep_replica_labels();
CREATE TRIGGER replicas_label_change AFTER UPDATE OF labels ON replicas
    FOR EACH ROW WHEN (OLD.labels IS DISTINCT FROM NEW.labels) EXECUTE FUNCTION keep_replica_labels();

-- the triggers above have locked out writers until this is committed
INSERT INTO replica_labels (replica_id, name, value)
    SELECT replicas.id, label.key, label.value #>> '{}' FROM replicas, jsonb_each(replicas.labels) AS label
    WHERE jsonb_typeof(label.value) = 'string';
