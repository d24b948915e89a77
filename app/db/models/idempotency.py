"""What an Idempotency-Key did, written in the change's own transaction. Holds ids, never an answer or a secret."""

from __future__ import annotations

from sqlalchemy import Column, Index, Table, Text

from app.db.metadata import json_object, metadata, timestamp

idempotency = Table(
    "idempotency",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("method", Text, primary_key=True),
    Column("path", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("body_hash", Text, nullable=False),
    json_object("outcome"),
    timestamp("created_at", nullable=False, default_now=True),
    Index(None, "created_at"),
)
