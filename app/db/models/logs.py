"""Output that is read from another host than it lies on: who wants it, and what was copied for them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, LargeBinary, Table, Text

from app.db.metadata import metadata, timestamp

log_readers = Table(
    "log_readers",
    metadata,
    Column("attempt_id", BigInteger, ForeignKey("attempts.id", ondelete="CASCADE"), primary_key=True),
    #: a reader puts it off as long as it reads
    timestamp("wanted_until", nullable=False),
    #: how far it was copied, in the backend's own words; empty: nothing yet
    Column("place", Text, nullable=False, server_default=""),
    timestamp("copied_at"),
    #: why nothing can be copied now
    Column("message", Text, nullable=False, server_default=""),
    Index("ix_log_readers_until", "wanted_until"),
)

#: Bounded per attempt, and gone when nobody reads it any more.
log_chunks = Table(
    "log_chunks",
    metadata,
    Column("attempt_id", BigInteger, ForeignKey("log_readers.attempt_id", ondelete="CASCADE"), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    #: where the next one begins
    Column("place", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
    timestamp("created_at", nullable=False, default_now=True),
)
