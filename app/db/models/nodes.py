"""Worker hosts and the processes on them, known by their heartbeats."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, Table, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from app.db.metadata import json_object, metadata, timestamp

nodes = Table(
    "nodes",
    metadata,
    Column("name", Text, primary_key=True),
    Column("address", Text, nullable=False, server_default="127.0.0.1"),
    Column("cpus", Integer),
    Column("memory_bytes", BigInteger),
    #: ``[{index, name, memory_bytes, uuid}]``
    Column("gpus", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    Column("boot_id", Text),
    Column("version", Text, nullable=False, server_default=""),
    json_object("attributes"),
    #: pools that its workers serve; NULL: all of them
    Column("pools", ARRAY(Text)),
    #: when the broker last took a canary for this host's workers
    timestamp("canary_at"),
    timestamp("first_seen_at", nullable=False, default_now=True),
    timestamp("heartbeat_at", nullable=False, default_now=True),
)

#: A process of ours. ``id`` is ``node:role:pid:start time``, so a reused pid is another worker.
workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("node", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("queues", ARRAY(Text), nullable=False, server_default=text("'{}'::text[]")),
    Column("concurrency", Integer, nullable=False, server_default=text("1")),
    timestamp("started_at", nullable=False, default_now=True),
    timestamp("heartbeat_at", nullable=False, default_now=True),
    #: when it last took a message from the broker (the canary)
    timestamp("consumed_at"),
    Index(None, "node", "role"),
)
