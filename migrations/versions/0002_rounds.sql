-- `next_check_at` changes with every claim. While an index holds it, each such change writes all indexes of the row anew;
-- without one it is a heap-only update, if the page has room for a second version of the row.
-- 0.1.0 finds what is due through ix_replicas_unreleased.
DROP INDEX ix_replicas_due;
ALTER TABLE replicas SET (fillfactor = 70);

-- What began to serve a moment ago is looked at at once, not only in the next round.
CREATE INDEX ix_replicas_serving ON replicas (state_since)
    WHERE released_at IS NULL AND state IN ('ready', 'unhealthy', 'unreachable');
