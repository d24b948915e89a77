"""Capacity: a unit is a slot, a port or a GPU that exists; a lease is who holds it, and its history."""

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
    Table,
    Text,
    text,
)

from app.db.metadata import metadata, one_of, timestamp

#: ``slot`` and ``pool_gpu`` are scoped by pool, ``port`` and ``gpu`` by node.
UNIT_KINDS = ("slot", "pool_gpu", "port", "gpu")

#: A lease without a unit is refused by the foreign key: that is how a slot beyond capacity cannot be.
units = Table(
    "units",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("scope", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    #: the live lease; set and cleared together with the lease's row
    Column("lease_id", BigInteger, ForeignKey("leases.id", use_alter=True, deferrable=True, initially="DEFERRED")),
    #: capacity that was taken away; no new lease (a trigger refuses it)
    Column("retired", Boolean, nullable=False, server_default=text("false")),
    #: ports go round instead of being used again at once
    timestamp("last_freed_at"),
    one_of("kind", UNIT_KINDS),
    CheckConstraint("number >= 0", name="number_not_negative"),
    Index("uq_units_lease", "lease_id", unique=True, postgresql_where=text("lease_id IS NOT NULL")),
    # taken away while in use: normally none
    Index("ix_units_debt", "kind", "scope", postgresql_where=text("retired AND lease_id IS NOT NULL")),
    Index(
        "ix_units_free",
        "kind",
        "scope",
        text("last_freed_at NULLS FIRST"),
        "number",
        postgresql_where=text("lease_id IS NULL AND NOT retired"),
    ),
)

leases = Table(
    "leases",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("attempt_id", BigInteger, ForeignKey("attempts.id", ondelete="SET NULL")),
    #: the attempt's name: stays in the history when the replica's record is deleted
    Column("holder", Text, nullable=False),
    timestamp("acquired_at", nullable=False, default_now=True),
    timestamp("released_at"),
    CheckConstraint("released_at IS NOT NULL OR attempt_id IS NOT NULL", name="live_has_attempt"),
    ForeignKeyConstraint(["kind", "scope", "number"], ["units.kind", "units.scope", "units.number"]),
    Index("uq_leases_live", "kind", "scope", "number", unique=True, postgresql_where=text("released_at IS NULL")),
    Index("ix_leases_attempt_live", "attempt_id", postgresql_where=text("released_at IS NULL")),
    Index("ix_leases_attempt", "attempt_id"),
    Index("ix_leases_released", "released_at", postgresql_where=text("released_at IS NOT NULL")),
    Index("ix_leases_unit", "kind", "scope", "number"),
)
