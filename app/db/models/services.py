"""Services: what should run, the revisions of it, and which replicas stand for it."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    text,
)

from app.db.metadata import json_object, metadata, one_of, timestamp

DESIRED_STATES = ("running", "cancelled")

services = Table(
    "services",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("owner", Text, ForeignKey("keys.id"), nullable=False),
    #: ``category/name``
    Column("recipe", Text, nullable=False, server_default=""),
    Column("pool", Text, nullable=False),
    json_object("labels"),
    #: how many replicas there should be
    Column("count", Integer, nullable=False),
    #: which revision should run
    Column("revision", Integer, nullable=False, server_default=text("1")),
    #: the last one of which all were ready: what a failed update goes back to
    Column("good_revision", Integer),
    Column("desired_state", Text, nullable=False, server_default="running"),
    #: no further step of an update
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    #: how the last update stands
    json_object("rollout"),
    Column("reason", Text),
    Column("message", Text, nullable=False, server_default=""),
    #: failures before this are forgiven
    timestamp("reset_at", nullable=False, default_now=True),
    #: when it is looked at next, though nothing changed
    timestamp("look_at"),
    timestamp("created_at", nullable=False, default_now=True),
    timestamp("updated_at", nullable=False, default_now=True),
    #: cancelled, and every replica seen gone
    timestamp("ended_at"),
    Column("version", BigInteger, nullable=False, server_default=text("1")),
    one_of("desired_state", DESIRED_STATES),
    CheckConstraint("id ~ '^[0-9a-f]{12}$'", name="id_is_hex"),
    CheckConstraint("name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'", name="name_form"),
    CheckConstraint("count BETWEEN 0 AND 10000", name="count_range"),
    CheckConstraint("revision >= 1", name="revision_positive"),
    CheckConstraint("ended_at IS NULL OR desired_state = 'cancelled'", name="ended_is_cancelled"),
    # a name may be used again when its service was cancelled
    Index("uq_services_name", "name", unique=True, postgresql_where=text("desired_state = 'running'")),
    Index("ix_services_created", "created_at", "id"),
    Index("ix_services_name", "name", "created_at"),
    Index("ix_services_owner", "owner"),
    Index("ix_services_look", "look_at", postgresql_where=text("look_at IS NOT NULL")),
    Index("ix_services_ended", "ended_at", postgresql_where=text("ended_at IS NOT NULL")),
)

#: What a service was asked to run. Never changed: an update is a new one, and going back is asking for an old one.
service_revisions = Table(
    "service_revisions",
    metadata,
    Column("service_id", Text, ForeignKey("services.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    json_object("spec"),
    #: the user's environment, encrypted; never leaves but with a replica that is made
    Column("environment", LargeBinary),
    Column("actor", Text, nullable=False),
    Column("cause", Text, nullable=False),
    timestamp("created_at", nullable=False, default_now=True),
    CheckConstraint("number >= 1", name="number_positive"),
)

#: Which replica stands for which place of a service. One that failed stays beside the one that replaces it.
service_members = Table(
    "service_members",
    metadata,
    Column("replica_id", Text, ForeignKey("replicas.id", ondelete="CASCADE"), primary_key=True),
    Column("service_id", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("ordinal", Integer, nullable=False),
    #: how many in a row failed in this place and revision before it
    Column("tries", Integer, nullable=False, server_default=text("0")),
    #: the replica that it is made for
    Column("replaces", Text),
    #: gone, and another one stands in its place: nothing is planned by it any more
    Column("past", Boolean, nullable=False, server_default=text("false")),
    timestamp("created_at", nullable=False, default_now=True),
    ForeignKeyConstraint(
        ["service_id", "revision"],
        ["service_revisions.service_id", "service_revisions.number"],
        name="fk_service_members_service_id",
        ondelete="CASCADE",
    ),
    CheckConstraint("ordinal >= 0", name="ordinal_not_negative"),
    CheckConstraint("tries >= 0", name="tries_not_negative"),
    Index("ix_service_members_service", "service_id", "ordinal", "created_at"),
    # whoever dies every minute for a month leaves forty thousand behind
    Index("ix_service_members_present", "service_id", postgresql_where=text("NOT past")),
)

#: Services whose replicas changed, a row each time; a trigger writes them, whoever reconciles takes them away.
service_hints = Table(
    "service_hints",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("service_id", Text, nullable=False),
    Index("ix_service_hints_service", "service_id"),
)
