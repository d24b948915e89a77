"""The history: append-only, with cause and actor, in an order that late commits cannot upset."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import UserDefinedType

from app.db.metadata import metadata, one_of, timestamp
from app.domain.lifecycle import Reason


class Xid8(UserDefinedType[int]):
    """Postgres's 64-bit transaction id: events are read only below the oldest one still running."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "xid8"


#: The lifecycle table as rows; an event's step must be one of them.
lifecycle_edges = Table(
    "lifecycle_edges",
    metadata,
    Column("from_state", Text, primary_key=True),
    Column("to_state", Text, primary_key=True),
)

events = Table(
    "events",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("xid", Xid8, nullable=False, server_default=text("pg_current_xact_id()")),
    timestamp("at", nullable=False, default_now=True),
    Column("kind", Text, nullable=False),
    Column("replica_id", Text),
    Column("attempt", Integer),
    Column("task_id", Text),
    Column("pool", Text),
    Column("node", Text),
    Column("actor", Text, nullable=False),
    Column("cause", Text, nullable=False),
    Column("from_state", Text),
    Column("to_state", Text),
    Column("reason", Text),
    Column("message", Text, nullable=False, server_default=""),
    Column("request_id", Text, nullable=False, server_default=""),
    Column("data", JSONB),
    ForeignKeyConstraint(["from_state", "to_state"], ["lifecycle_edges.from_state", "lifecycle_edges.to_state"]),
    CheckConstraint("from_state IS NOT NULL OR to_state IS NULL OR to_state = 'pending'", name="starts_pending"),
    one_of("reason", Reason),
    Index("ix_events_order", "xid", "id"),
    Index("ix_events_replica", "replica_id", "xid", "id"),
    Index("ix_events_task", "task_id", "xid", "id", postgresql_where=text("task_id IS NOT NULL")),
    Index(
        "ix_events_service",
        text("(data ->> 'service_id')"),
        "xid",
        "id",
        postgresql_where=text("data ? 'service_id'"),
    ),
    Index("ix_events_at", "at"),
)
