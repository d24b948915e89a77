"""Gateways, what each may be routing to, and the replicas that get time to finish what is in flight."""

from __future__ import annotations

from sqlalchemy import Boolean, CheckConstraint, Column, Double, ForeignKey, Index, Integer, Table, Text, text

from app.db.metadata import metadata, timestamp

#: One per HAProxy that an agent of ours programs.
gateways = Table(
    "gateways",
    metadata,
    Column("id", Text, primary_key=True),
    Column("node", Text, nullable=False),
    #: the agent's
    Column("pid", Integer, nullable=False),
    Column("version", Text, nullable=False, server_default=""),
    #: whether its HAProxy answered the agent last time
    Column("haproxy_up", Boolean, nullable=False, server_default=text("false")),
    timestamp("first_seen_at", nullable=False, default_now=True),
    timestamp("heartbeat_at", nullable=False, default_now=True),
)

#: Written before a server is routed, deleted after HAProxy confirmed that it is gone: until then its port is nobody's.
#: It refers to no replica, because it outlives them.
gateway_servers = Table(
    "gateway_servers",
    metadata,
    Column("gateway", Text, ForeignKey("gateways.id", ondelete="CASCADE"), primary_key=True),
    #: ``<replica>-<attempt>``
    Column("server", Text, primary_key=True),
    Column("replica_id", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    #: the host whose port it is
    Column("node", Text),
    Column("port", Integer, nullable=False),
    timestamp("created_at", nullable=False, default_now=True),
    #: taken out of balancing and seen without a request in flight
    timestamp("idle_at"),
    CheckConstraint("port BETWEEN 1 AND 65535", name="port_range"),
    Index("ix_gateway_servers_replica", "replica_id", "attempt"),
    Index("ix_gateway_servers_port", "node", "port"),
)

#: A replica that was routed when it was asked to end: nobody ends this attempt before ``until``, unless by force.
drains = Table(
    "drains",
    metadata,
    Column("replica_id", Text, ForeignKey("replicas.id", ondelete="CASCADE"), primary_key=True),
    Column("attempt", Integer, nullable=False),
    #: how long it was given; an ``until`` further ahead was left behind by a clock that was set back
    Column("seconds", Double, nullable=False),
    timestamp("until", nullable=False),
    CheckConstraint("seconds > 0", name="seconds_positive"),
)
