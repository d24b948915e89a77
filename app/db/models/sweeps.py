"""Ticks that were won: any number of beats may ring, the first insert carries the tick out."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Table, Text

from app.db.metadata import json_object, metadata, timestamp

#: ``tick`` is one more than the last one, so of two processes that find it due the second has nothing to insert.
#: Tick 0 is a row that stays: whose rounds they are, and when the last one began (``usecases.rounds``).
sweeps = Table(
    "sweeps",
    metadata,
    Column("name", Text, primary_key=True),
    Column("tick", BigInteger, primary_key=True),
    Column("worker", Text, nullable=False),
    timestamp("started_at", nullable=False, default_now=True),
    timestamp("finished_at"),
    json_object("result"),
    Index(None, "started_at"),
)
