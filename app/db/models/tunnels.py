"""The local ends by which one host of ours reaches a replica on a network that it cannot see."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Index, Integer, Table, Text

from app.db.metadata import metadata, one_of, timestamp

TUNNEL_STATES = ("opening", "up", "down")

tunnels = Table(
    "tunnels",
    metadata,
    Column("attempt_id", BigInteger, ForeignKey("attempts.id", ondelete="CASCADE"), primary_key=True),
    #: the host of ours that listens
    Column("node", Text, primary_key=True),
    #: of its loopback; leased to the attempt there
    Column("port", Integer, nullable=False),
    #: its other end, as the host of the pool's ``ssh`` option names it
    Column("to_host", Text, nullable=False),
    Column("to_port", Integer, nullable=False),
    Column("state", Text, nullable=False, server_default="opening"),
    Column("message", Text, nullable=False, server_default=""),
    timestamp("since", nullable=False, default_now=True),
    one_of("state", TUNNEL_STATES),
    CheckConstraint("port BETWEEN 1 AND 65535", name="port_range"),
    Index(None, "node"),
)
