"""Output that is read from another host than it lies on: who wants it, and what was copied for them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Identity, Index, LargeBinary, Table, Text, text

from app.db.metadata import metadata, timestamp

log_copies = Table(
    "log_copies",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("attempt_id", BigInteger, ForeignKey("attempts.id", ondelete="CASCADE"), nullable=False),
    #: where the copy begins and how far it is, in the backend's own words; empty: the oldest output that is kept
    Column("begins", Text, nullable=False, server_default=""),
    Column("place", Text, nullable=False, server_default=""),
    #: where that was, of one that begins before the last lines (``tail_words``); NULL until its copier knows it
    Column("began", Text),
    #: what was copied in all, and what of it the quickest reader has read
    Column("size_bytes", BigInteger, nullable=False, server_default=text("0")),
    Column("read_bytes", BigInteger, nullable=False, server_default=text("0")),
    #: half a line at its end
    Column("rest", LargeBinary, nullable=False, server_default=text("''::bytea")),
    #: readers count up what they asked; the copier answers with that number once nothing more was there
    Column("asked", BigInteger, nullable=False, server_default=text("0")),
    Column("answered", BigInteger, nullable=False, server_default=text("0")),
    #: a reader puts it off as long as it reads
    timestamp("wanted_until", nullable=False),
    #: the agent that copies, and until when it need not say so again
    Column("taken_by", Text),
    timestamp("taken_until"),
    #: why nothing can be copied now
    Column("message", Text, nullable=False, server_default=""),
    Index(None, "attempt_id"),
    Index(None, "wanted_until"),
)

log_chunks = Table(
    "log_chunks",
    metadata,
    Column("copy_id", BigInteger, ForeignKey("log_copies.id", ondelete="CASCADE"), primary_key=True),
    #: bytes of the copy before it
    Column("starts", BigInteger, primary_key=True, autoincrement=False),
    #: where the next one begins, in the backend's own words
    Column("place", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
    #: what came before it is kept no more
    Column("gap", Boolean, nullable=False, server_default=text("false")),
)
