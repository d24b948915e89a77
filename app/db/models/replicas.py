"""Replicas: one inference server each, from the wish to the last trace of it."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from app.db.metadata import json_object, metadata, one_of, timestamp
from app.domain.lifecycle import Reason, State
from app.domain.modes import ServerMode

_TERMINAL = "state IN ('stopped', 'failed')"
_SERVING = "state IN ('ready', 'unhealthy', 'unreachable')"

replicas = Table(
    "replicas",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, ForeignKey("keys.id"), nullable=False),
    Column("pool", Text, ForeignKey("pools.name"), nullable=False),
    Column("backend", Text, ForeignKey("backends.name"), nullable=False),
    Column("engine", Text, nullable=False),
    Column("server_mode", Text, nullable=False),
    Column("model_name", Text, nullable=False),
    #: the request as accepted, user environment left out
    json_object("spec"),
    #: the user's environment, encrypted; never leaves but to the launching worker
    Column("environment", LargeBinary),
    json_object("labels"),
    Column("priority", SmallInteger, nullable=False),
    Column("desired_state", Text, nullable=False, server_default="running"),
    Column("state", Text, nullable=False, server_default="pending"),
    Column("reason", Text),
    Column("message", Text, nullable=False, server_default=""),
    Column("attempt", Integer, nullable=False, server_default=text("1")),
    Column("node", Text),
    Column("host", Text),
    Column("port", Integer),
    Column("base_url", Text),
    #: when each state was last entered, by name
    json_object("timestamps"),
    Column("diagnostics", JSONB),
    Column("last_health", JSONB),
    Column("check_failures", Integer, nullable=False, server_default=text("0")),
    Column("grace_s", Integer, nullable=False, server_default=text("30")),
    timestamp("state_since", nullable=False, default_now=True),
    #: when the sweep looks at it next, while it is on its way; what serves is looked at in rounds. No index holds it.
    timestamp("next_check_at"),
    #: when the present state runs out
    timestamp("deadline_at"),
    timestamp("lifetime_ends_at"),
    #: seen gone and leases returned; a terminal state alone does not say so
    timestamp("released_at"),
    timestamp("created_at", nullable=False, default_now=True),
    timestamp("updated_at", nullable=False, default_now=True),
    Column("version", BigInteger, nullable=False, server_default=text("1")),
    one_of("state", State),
    one_of("reason", Reason),
    one_of("server_mode", ServerMode),
    one_of("desired_state", ("running", "stopped")),
    CheckConstraint("id ~ '^[0-9a-f]{12}$'", name="id_is_hex"),
    CheckConstraint("state <> 'failed' OR reason IS NOT NULL", name="failed_has_reason"),
    CheckConstraint(f"released_at IS NULL OR {_TERMINAL}", name="released_is_terminal"),
    CheckConstraint("port BETWEEN 1 AND 65535", name="port_range"),
    CheckConstraint("priority BETWEEN 0 AND 3", name="priority_range"),
    CheckConstraint("attempt >= 1", name="attempt_positive"),
    Index("ix_replicas_created", "created_at", "id"),
    Index("ix_replicas_state", "state", "created_at", "id"),
    Index("ix_replicas_pool", "pool", "created_at", "id"),
    Index("ix_replicas_model_name", "model_name", "created_at", "id"),
    Index("ix_replicas_server_mode", "server_mode", "created_at", "id"),
    Index("ix_replicas_owner", "owner", "created_at", "id"),
    Index("ix_replicas_labels", "labels", postgresql_using="gin", postgresql_ops={"labels": "jsonb_path_ops"}),
    Index("ix_replicas_deadline", "deadline_at", postgresql_where=text("deadline_at IS NOT NULL")),
    Index("ix_replicas_lifetime", "lifetime_ends_at", postgresql_where=text("lifetime_ends_at IS NOT NULL")),
    Index("ix_replicas_released", "released_at", postgresql_where=text("released_at IS NOT NULL")),
    Index("ix_replicas_unreleased", "node", "state", postgresql_where=text("released_at IS NULL")),
    Index("ix_replicas_serving", "state_since", postgresql_where=text(f"released_at IS NULL AND {_SERVING}")),
    # room for a second version of a row beside it: what no index holds is then changed without touching one
    postgresql_with={"fillfactor": 70},
)

#: The labels again, a row each: so many carry a label as the index has entries for it. Triggers write it.
replica_labels = Table(
    "replica_labels",
    metadata,
    Column("replica_id", Text, ForeignKey("replicas.id", ondelete="CASCADE"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Index("ix_replica_labels_pair", "name", "value"),
)

#: How many replicas there are of each kind, as changes that a sweep folds together: a list's total must not cost more
#: with every replica, and a counter in one row would make every step wait for every other. Triggers write it.
replica_counts = Table(
    "replica_counts",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("state", Text, nullable=False),
    Column("server_mode", Text, nullable=False),
    Column("model_name", Text, nullable=False),
    Column("pool", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("change", Integer, nullable=False),
)
