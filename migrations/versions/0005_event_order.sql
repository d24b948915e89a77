-- What happened to one replica is told in the order in which it happened. Events go by (xid, id), and a transaction that
-- began first may write second: it waits for the replica's row with its smaller xid in hand. Such an event takes the place
-- behind the one before it. Nothing is lost by that: while its own transaction runs, no reader goes past its smaller xid.
CREATE FUNCTION put_event_in_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.xid = greatest(
        NEW.xid,
        -- as a range, so that only the replica's own index has this order: with `=` a plan that is kept from when the table
        -- was small walks the whole history back
        (SELECT xid FROM events WHERE replica_id BETWEEN NEW.replica_id AND NEW.replica_id
            ORDER BY replica_id DESC, xid DESC, id DESC LIMIT 1)
    );
    RETURN NEW;
END $$;
-- a replica's first event has none before it
CREATE TRIGGER events_in_order BEFORE INSERT ON events
    FOR EACH ROW WHEN (NEW.replica_id IS NOT NULL AND (NEW.from_state IS NOT NULL OR NEW.to_state IS NULL))
    EXECUTE FUNCTION put_event_in_order();
