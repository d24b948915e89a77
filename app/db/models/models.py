"""The catalogue: what can be served, by name. GGUF files of the models folder need no row."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Index, Table, Text, text
from sqlalchemy.dialects.postgresql import ARRAY

from app.db.metadata import json_object, metadata, timestamp

models = Table(
    "models",
    metadata,
    Column("name", Text, primary_key=True),
    Column("engine", Text, nullable=False),
    #: a path or a hub id
    Column("source", Text, nullable=False, server_default=""),
    Column("format", Text, nullable=False, server_default=""),
    #: merged under a create's ``replica_config``
    json_object("defaults"),
    Column("aliases", ARRAY(Text), nullable=False, server_default=text("'{}'::text[]")),
    Column("owner", Text, nullable=False),
    timestamp("created_at", nullable=False, default_now=True),
    CheckConstraint("length(name) BETWEEN 1 AND 200", name="name_length"),
    Index("ix_models_aliases", "aliases", postgresql_using="gin"),
)
