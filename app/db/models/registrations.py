"""The capability registry: servers that others run, and the processes of ours that hold their streams."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, ForeignKey, Index, Integer, Table, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, JSON

from app.db.metadata import metadata, one_of, timestamp
from app.db.models.events import Xid8

#: Nobody asked it yet; something answers there; nothing does, or what does says that it cannot.
HEALTH = ("unknown", "healthy", "unhealthy")
#: HTTP; the Open Inference Protocol over HTTP; something else, gRPC as a rule.
SPEAKS = ("http", "v2", "other")
#: Its stream was closed; its registrar did not come back; its key was revoked or ran out; its endpoint is one of ours
#: meanwhile; an operator took it out.
END_REASONS = ("closed", "lapsed", "key_ended", "refused", "removed")

_LIVE = text("ended_at IS NULL")

registrars = Table(
    "registrars",
    metadata,
    Column("id", Text, primary_key=True),
    Column("node", Text, nullable=False),
    #: counts up while the process lives
    Column("renewals", BigInteger, nullable=False, server_default=text("1")),
    timestamp("started_at", nullable=False, default_now=True),
    timestamp("renewed_at", nullable=False, default_now=True),
)

registrations = Table(
    "registrations",
    metadata,
    Column("replica_id", Text, primary_key=True),
    #: one stream each: what ends names the generation it means
    Column("generation", BigInteger, nullable=False),
    Column("owner", Text, ForeignKey("keys.id", ondelete="CASCADE"), nullable=False),
    Column("registrar", Text, ForeignKey("registrars.id", ondelete="SET NULL")),
    #: the host whose API took it, and whose loopback is meant
    Column("node", Text, nullable=False),
    #: as it was sent, and its parts
    Column("endpoint", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("port", Integer, nullable=False),
    #: what the name meant when it was registered, and which of them is used
    Column("addresses", ARRAY(Text), nullable=False),
    Column("address", Text, nullable=False),
    #: an address of the very host that took it, which leases ports to engines of ours
    Column("local", Boolean, nullable=False),
    #: as it was sent, the order of names too
    Column("capabilities", JSON, nullable=False, server_default=text("'[]'::json")),
    Column("health", Text, nullable=False, server_default="unknown"),
    Column("speaks", Text),
    Column("message", Text, nullable=False, server_default=""),
    timestamp("registered_at", nullable=False, default_now=True),
    #: when the present stream began
    timestamp("connected_at", nullable=False, default_now=True),
    timestamp("checked_at"),
    timestamp("answered_at"),
    timestamp("ended_at"),
    Column("end_reason", Text),
    #: the transaction that changed it last; a trigger writes it
    Column("changed", Xid8, nullable=False, server_default=text("pg_current_xact_id()")),
    one_of("health", HEALTH),
    one_of("speaks", SPEAKS),
    one_of("end_reason", END_REASONS),
    CheckConstraint("(ended_at IS NULL) = (end_reason IS NULL)", name="ended_has_reason"),
    CheckConstraint("ended_at IS NOT NULL OR registrar IS NOT NULL", name="live_is_held"),
    CheckConstraint("port BETWEEN 1 AND 65535", name="port_range"),
    CheckConstraint("address = ANY (addresses)", name="address_is_pinned"),
    CheckConstraint("json_typeof(capabilities) = 'array'", name="capabilities_are_a_list"),
    Index("ix_registrations_changed", "changed"),
    Index("ix_registrations_owner", "owner"),
    Index("ix_registrations_registrar", "registrar", postgresql_where=_LIVE),
    Index("ix_registrations_port", "port", postgresql_where=_LIVE),
    Index("ix_registrations_ended", "ended_at", postgresql_where=text("ended_at IS NOT NULL")),
)
