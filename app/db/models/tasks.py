"""Tasks: what was asked for and must be carried out once."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from app.db.metadata import json_object, metadata, one_of, timestamp
from app.domain.lifecycle import Reason
from app.domain.tasks import Phase, TaskKind, TaskState

_OPEN = "state IN ('queued', 'running')"

tasks = Table(
    "tasks",
    metadata,
    Column("id", Text, primary_key=True),
    #: age: what the claim orders by after the priority
    Column("seq", BigInteger, Identity(), nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False, server_default="queued"),
    Column("phase", Text, nullable=False, server_default="queued"),
    Column("priority", SmallInteger, nullable=False),
    Column("pool", Text, nullable=False),
    #: set when only that host's workers can carry it out
    Column("node", Text),
    #: NULL for what is asked of a service: then ``arguments`` names it
    Column("replica_id", Text, ForeignKey("replicas.id", ondelete="CASCADE")),
    Column("attempt", Integer, nullable=False),
    Column("owner", Text, nullable=False),
    Column("request_id", Text, nullable=False, server_default=""),
    json_object("arguments"),
    Column("reason", Text),
    Column("message", Text, nullable=False, server_default=""),
    Column("result", JSONB),
    Column("cancel_asked", Boolean, nullable=False, server_default=text("false")),
    #: how often a worker claimed it; bounded, so that a poison task ends
    Column("claims", Integer, nullable=False, server_default=text("0")),
    Column("claimed_by", Text),
    Column("lease_token", Uuid(as_uuid=False)),
    timestamp("lease_expires_at"),
    timestamp("created_at", nullable=False, default_now=True),
    timestamp("started_at"),
    timestamp("finished_at"),
    timestamp("deadline_at"),
    #: a probe that is repeated waits until here
    timestamp("not_before"),
    Column("version", BigInteger, nullable=False, server_default=text("1")),
    one_of("kind", TaskKind),
    one_of("state", TaskState),
    one_of("phase", Phase),
    one_of("reason", Reason),
    CheckConstraint("priority BETWEEN 0 AND 3", name="priority_range"),
    CheckConstraint("(lease_token IS NULL) = (lease_expires_at IS NULL)", name="lease_whole"),
    CheckConstraint("lease_token IS NULL OR state = 'running'", name="lease_only_running"),
    CheckConstraint(f"(finished_at IS NULL) = ({_OPEN})", name="finished_when_ended"),
    CheckConstraint(
        "replica_id IS NOT NULL OR (arguments ? 'service_id' AND state <> 'queued')", name="of_replica_or_service"
    ),
    Index(
        "uq_tasks_open_lifecycle",
        "replica_id",
        unique=True,
        postgresql_where=text(f"{_OPEN} AND kind IN ('create', 'stop', 'restart')"),
    ),
    Index(
        "ix_tasks_launch",
        "pool",
        "priority",
        "seq",
        postgresql_where=text("state = 'queued' AND kind IN ('create', 'restart')"),
    ),
    Index(
        "ix_tasks_launch_again",
        "pool",
        "priority",
        "seq",
        postgresql_where=text("state = 'queued' AND claims > 0 AND kind IN ('create', 'restart')"),
    ),
    Index(
        "ix_tasks_other",
        "pool",
        "kind",
        "seq",
        postgresql_where=text("state = 'queued' AND kind NOT IN ('create', 'restart')"),
    ),
    Index("ix_tasks_node", "node", "kind", "seq", postgresql_where=text("state = 'queued' AND node IS NOT NULL")),
    Index("ix_tasks_lease", "lease_expires_at", postgresql_where=text("lease_expires_at IS NOT NULL")),
    Index("ix_tasks_holder", "claimed_by", postgresql_where=text("lease_token IS NOT NULL")),
    Index("ix_tasks_deadline", "deadline_at", postgresql_where=text(f"{_OPEN}")),
    Index("ix_tasks_finished", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
    Index("ix_tasks_replica", "replica_id", "seq"),
    Index("ix_tasks_service", text("(arguments ->> 'service_id')"), "seq", postgresql_where=text("replica_id IS NULL")),
    Index(
        "ix_tasks_service_open",
        text("(arguments ->> 'service_id')"),
        postgresql_where=text(f"replica_id IS NULL AND {_OPEN}"),
    ),
    Index("ix_tasks_age", "seq"),
    Index("ix_tasks_state", "state", "seq"),
)
