"""Two tables of one row each: who this stack is, and how far its clock is moved."""

from __future__ import annotations

from sqlalchemy import Boolean, CheckConstraint, Column, Interval, Table, Text, text

from app.db.metadata import json_object, metadata, timestamp

#: ``id`` is made once by the first migration; the namespace in broker and node names comes from it.
stack = Table(
    "stack",
    metadata,
    Column("single", Boolean, primary_key=True, server_default=text("true")),
    Column("id", Text, nullable=False),
    timestamp("created_at", nullable=False, default_now=True),
    #: by name of a key that all hosts must have, what tells whether they do (see ``app.usecases.key_marks``)
    json_object("key_marks"),
    CheckConstraint("single", name="one_row"),
)

#: ``hostler_now()`` adds ``shift`` to the clock of the database, so that tests can move time for every process.
clock = Table(
    "clock",
    metadata,
    Column("single", Boolean, primary_key=True, server_default=text("true")),
    Column("shift", Interval, nullable=False, server_default=text("interval '0'")),
    CheckConstraint("single", name="one_row"),
)
