"""Pools say where replicas run, backends what a worker there can drive."""

from __future__ import annotations

from sqlalchemy import Boolean, CheckConstraint, Column, ForeignKey, Integer, Table, Text, text
from sqlalchemy.dialects.postgresql import ARRAY

from app.db.metadata import json_object, metadata, one_of, timestamp

POOL_STATES = ("active", "draining")

#: Workers write their backends here when they start, so that the API can check options without loading a backend.
backends = Table(
    "backends",
    metadata,
    Column("name", Text, primary_key=True),
    Column("summary", Text, nullable=False, server_default=""),
    json_object("options_schema"),
    Column("host_bound", Boolean, nullable=False),
    Column("serves_http", Boolean, nullable=False),
    Column("lacks", ARRAY(Text), nullable=False, server_default=text("'{}'::text[]")),
    timestamp("updated_at", nullable=False, default_now=True),
)

pools = Table(
    "pools",
    metadata,
    Column("name", Text, primary_key=True),
    Column("backend", Text, ForeignKey("backends.name"), nullable=False),
    json_object("options"),
    Column("slots", Integer, nullable=False),
    #: GPUs that the pool's replicas may hold together; NULL is as many as its nodes have
    Column("gpus", Integer),
    json_object("labels"),
    #: defaults of a create: merged under the request
    json_object("defaults"),
    Column("state", Text, nullable=False, server_default="active"),
    timestamp("created_at", nullable=False, default_now=True),
    timestamp("updated_at", nullable=False, default_now=True),
    one_of("state", POOL_STATES),
    CheckConstraint("name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'", name="name_form"),
    CheckConstraint("slots BETWEEN 0 AND 100000", name="slots_range"),
    CheckConstraint("gpus BETWEEN 0 AND 100000", name="gpus_range"),
)
