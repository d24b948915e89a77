"""What the data path depends on: how long each step may take, how often it is tried, where its own servers are."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Lanes:
    """Durations are seconds. The doors inside and the slow lane's socket are addresses as HAProxy takes them."""

    #: what our own engines demand; a caller's key never gets there
    engine_key: str = field(default="", repr=False)
    inside: str = "unix@../run/door.sock"
    relay: str = "unix@../run/relay.sock"
    slow_lane: str = "unix@../run/slow-lane.sock"
    maps: str = "maps"
    #: pre-made backends
    slots: int = 500
    #: size of HAProxy's buffers: a body that fits, headers beside it, takes the fast lane
    buffer_bytes: int = 24 * 1024
    body_s: int = 30
    connect_s: float = 2
    queue_s: float = 30
    #: the most requests that wait in one route's queue
    queue: int = 1000
    #: until an engine's first byte, and between two of an upgraded connection or of a stream
    first_byte_s: float = 600
    tunnel_s: float = 3600
    #: tries after the first
    retries: int = 2
    check_s: float = 1
    #: errors in a row that count as one failed check, and failed checks that take a replica out
    error_limit: int = 10
    fall: int = 2
