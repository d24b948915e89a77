"""API keys: stored as the SHA-256 of the whole key, in the upper-case hex that HAProxy's map uses too."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Index, Table, Text, text
from sqlalchemy.dialects.postgresql import ARRAY

from app.db.metadata import json_object, metadata, one_of, timestamp

ROLES = ("read", "infer", "register", "operate", "admin")

keys = Table(
    "keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("hash", Text, nullable=False),
    #: first characters, to recognise a key by; never enough to use it
    Column("prefix", Text, nullable=False),
    Column("role", Text, nullable=False),
    #: models an ``infer`` key may ask; NULL is all
    Column("models", ARRAY(Text)),
    json_object("limits"),
    #: options of backends that this key's launches carry: ``{"slurm": {"account": "..."}}``
    json_object("backend_options"),
    timestamp("created_at", nullable=False, default_now=True),
    timestamp("expires_at"),
    timestamp("revoked_at"),
    timestamp("last_used_at"),
    Column("created_by", Text),
    one_of("role", ROLES),
    CheckConstraint("hash ~ '^[0-9A-F]{64}$'", name="hash_is_sha256"),
    CheckConstraint("id ~ '^[0-9a-f]{12}$'", name="id_is_hex"),
    Index("uq_keys_hash", "hash", unique=True),
    Index("uq_keys_name_live", "name", unique=True, postgresql_where=text("revoked_at IS NULL")),
)
