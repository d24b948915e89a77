"""Settings of the gateway: HAProxy, and the slow lane for what must be parsed."""

from __future__ import annotations

from dataclasses import dataclass

from app.settings.declaring import setting


@dataclass(frozen=True)
class Gateway:
    haproxy: str = setting("", "Program of HAProxy, 2.8 or newer; default: the wheel's, else the one on PATH.")
    max_body: int = setting(
        32 * 1024 * 1024, "Largest request body that the gateway lets in, in bytes.", within=(1024, 1 << 30)
    )
    gateway_threads: int = setting(0, "Threads of HAProxy; 0: one per core, eight at most.", within=(0, 256))
    gateway_connections: int = setting(
        0, "Connections the gateway holds at once; 0: as many as the open-file limit allows.", within=(0, 1_000_000)
    )
    gateway_routes: int = setting(
        500,
        "Routes that the gateway holds at once; routes with the same replicas count once.",
        within=(1, 10_000),
    )
    gateway_buffer_bytes: int = setting(
        24 * 1024,
        "HAProxy's buffers: a request whose body fits beside its headers takes the fast lane.",
        within=(16384, 1 << 20),
    )
    gateway_connect_s: float = setting(2.0, "Until a replica takes a connection; then another.", within=(0.05, 60))
    gateway_queue: int = setting(1000, "Requests that wait in a route's queue; beyond it 429.", within=(0, 1_000_000))
    gateway_queue_s: float = setting(
        30.0, "How long a request waits for a replica with room; then 503.", within=(0.05, 3600)
    )
    gateway_first_byte_s: float = setting(
        600.0, "Until the first byte of a replica's answer; then 504.", within=(0.1, 86400)
    )
    gateway_idle_s: float = setting(
        120.0,
        "Longest silence inside an answer that has begun; then it is cut. The agent looks every two seconds; 0: none,"
        " and gateway_first_byte_s ends it.",
        within=(0, 86400),
    )
    gateway_total_s: float = setting(
        0.0,
        "Longest a request may take in all; then it is cut. The agent looks every two seconds; 0: any time.",
        within=(0, 7 * 86400),
    )
    gateway_tunnel_s: float = setting(
        3600.0, "Longest silence of an upgraded connection (WebSocket) to a replica.", within=(1, 86400)
    )
    gateway_retries: int = setting(2, "Tries after the first: another replica, before the first byte.", within=(0, 20))
    gateway_check_s: float = setting(1.0, "Between two of the gateway's checks of a replica.", within=(0.1, 60))
    gateway_error_limit: int = setting(
        10, "Errors of a replica in a row (5xx, broken connections) that count as one failed check.", within=(1, 1000)
    )
    gateway_fall: int = setting(2, "Failed checks in a row that take a replica out.", within=(1, 100))
    gateway_all_out: str = setting(
        "refuse",
        "When checks have taken every replica of a route out: refuse (503), or try one of them all the same.",
        one_of=("refuse", "try"),
    )
    slow_lane_bytes: int = setting(
        128 * 1024 * 1024, "Memory for bodies that are parsed, in each of two processes.", within=(1 << 20, 1 << 40)
    )
    slow_lane_queue: int = setting(
        100, "Requests that wait for room in the slow lane, in each process; beyond it 429.", within=(0, 100_000)
    )
    slow_lane_body_s: float = setting(
        120.0, "How long a body may take to arrive in the slow lane; then 408.", within=(1, 3600)
    )
