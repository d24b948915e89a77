-- What retention deletes is found by an index, oldest first; and a unit that is deleted needs its leases looked up.

CREATE INDEX ix_attempts_released ON attempts (released_at) WHERE released_at IS NOT NULL;
CREATE INDEX ix_leases_released ON leases (released_at) WHERE released_at IS NOT NULL;
CREATE INDEX ix_leases_unit ON leases (kind, scope, number);
CREATE INDEX ix_replicas_released ON replicas (released_at) WHERE released_at IS NOT NULL;
CREATE INDEX ix_tasks_finished ON tasks (finished_at) WHERE finished_at IS NOT NULL;
