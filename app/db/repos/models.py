"""The catalogue of models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, text

_COLUMNS = "name, engine, source, format, defaults, aliases, owner, created_at"


def find(connection: Connection, name: str) -> Any | None:
    """The model of that name, else the one that has it as an alias, else None."""
    query = text(
        f"SELECT {_COLUMNS} FROM models WHERE name = :name OR aliases @> ARRAY[CAST(:name AS text)]"
        " ORDER BY (name = :name) DESC, name LIMIT 1"
    )
    return connection.execute(query, {"name": name}).first()


def read(connection: Connection, name: str) -> Any | None:
    return connection.execute(text(f"SELECT {_COLUMNS} FROM models WHERE name = :name"), {"name": name}).first()


def read_all(connection: Connection) -> list[Any]:
    """Every catalogue row by name; a catalogue is small."""
    return list(connection.execute(text(f"SELECT {_COLUMNS} FROM models ORDER BY name")))


def lock_table(connection: Connection) -> None:
    """Let one catalogue change happen at a time: names and aliases share one space that no index can span."""
    connection.execute(text("LOCK TABLE models IN SHARE ROW EXCLUSIVE MODE"))


def taken(connection: Connection, names: list[str]) -> list[str]:
    """Which of ``names`` are a model's name or alias already."""
    query = text(
        "SELECT DISTINCT word FROM models, unnest(aliases || name) AS word WHERE word = ANY(:names) ORDER BY word"
    )
    return list(connection.execute(query, {"names": names}).scalars())


def insert(connection: Connection, values: Mapping[str, Any]) -> None:
    query = text(
        "INSERT INTO models (name, engine, source, format, defaults, aliases, owner)"
        " VALUES (:name, :engine, :source, :format, CAST(:defaults AS jsonb), :aliases, :owner)"
    )
    connection.execute(query, {**values, "defaults": json.dumps(values["defaults"])})


def live_replicas(connection: Connection, names: list[str]) -> int:
    """How many replicas of these names are not gone yet."""
    query = text("SELECT count(*) FROM replicas WHERE model_name = ANY(:names) AND released_at IS NULL")
    return int(connection.execute(query, {"names": names}).scalar_one())


def delete(connection: Connection, name: str) -> None:
    connection.execute(text("DELETE FROM models WHERE name = :name"), {"name": name})
