"""Attempts: each launch of a replica, with its own handle, end and log."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Identity, Index, Integer, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from app.db.metadata import metadata, one_of, timestamp
from app.domain.lifecycle import Reason

attempts = Table(
    "attempts",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("replica_id", Text, ForeignKey("replicas.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    #: the mark that every outside thing of this attempt carries
    Column("name", Text, nullable=False),
    Column("pool", Text, nullable=False),
    Column("backend", Text, nullable=False),
    #: the host it is bound to; NULL when the backend is bound to none
    Column("node", Text),
    Column("host", Text),
    Column("port", Integer),
    #: the backend's own handle; NULL until it was launched or adopted
    Column("backend_ref", JSONB),
    #: what the backend told beside its state: job id, why it waits, when it may start
    Column("told", JSONB),
    #: the cluster's name for it, which users may use instead of ours
    Column("job_id", Text),
    #: why it could not be asked to end, the last time that was tried
    Column("stop_trouble", Text),
    #: when an admin gave it up without its having been seen gone; NULL again once it is
    timestamp("left_behind_at"),
    #: when a launch began: from here on an outside thing may exist
    timestamp("launching_at"),
    timestamp("stop_asked_at"),
    timestamp("ended_at"),
    timestamp("released_at"),
    Column("reason", Text),
    Column("message", Text, nullable=False, server_default=""),
    Column("exit_code", Integer),
    Column("signal", Integer),
    Column("log_tail", Text, nullable=False, server_default=""),
    timestamp("created_at", nullable=False, default_now=True),
    one_of("reason", Reason),
    CheckConstraint("number >= 1", name="number_positive"),
    Index("uq_attempts_name", "name", unique=True),
    Index("uq_attempts_replica_number", "replica_id", "number", unique=True),
    # an earlier attempt must be seen gone before the next one may hold anything
    Index("uq_attempts_replica_open", "replica_id", unique=True, postgresql_where=text("released_at IS NULL")),
    Index("ix_attempts_released", "released_at", postgresql_where=text("released_at IS NOT NULL")),
    Index("ix_attempts_left_behind", "left_behind_at", postgresql_where=text("left_behind_at IS NOT NULL")),
    Index("ix_attempts_job", "job_id", postgresql_where=text("job_id IS NOT NULL")),
    Index("ix_attempts_node_open", "node", postgresql_where=text("released_at IS NULL")),
)
