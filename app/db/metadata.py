"""The metadata that every table joins, with one naming rule so that migrations can name what they change."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from sqlalchemy import CheckConstraint, Column, DateTime, MetaData, text
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

NOW = text("hostler_now()")
EMPTY_OBJECT = text("'{}'::jsonb")


def timestamp(name: str, *, nullable: bool = True, default_now: bool = False) -> Column:
    """A UTC-aware time; ``default_now`` fills it by the database's movable clock."""
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=NOW if default_now else None)


def json_object(name: str) -> Column:
    """A JSON object, empty by default."""
    return Column(name, JSONB, nullable=False, server_default=EMPTY_OBJECT)


def one_of(column: str, values: Iterable[StrEnum | str], name: str | None = None) -> CheckConstraint:
    """CHECK that the column holds one of ``values`` (or NULL)."""
    listed = ", ".join(f"'{value!s}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=name or f"{column}_known")
