"""``create``: POST /api/v1/replicas to 202 through the whole API, beside a bare endpoint with the same parts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import psycopg
import redis

from benchmarks import load
from benchmarks.responder import responder
from benchmarks.result import Result, alternate, joined, result
from benchmarks.stack import Stack, free_port, stack, wait_until

CONNECTIONS = 64
SECONDS = 4.0
PROCESSES = 3
TABLE = """
CREATE TABLE IF NOT EXISTS floor_creates
(id text PRIMARY KEY, model_name text NOT NULL, spec jsonb NOT NULL, at timestamptz DEFAULT now())
"""
#: The generator has the last core to itself as far as we can say; the servers are not pinned.
CORE = (os.cpu_count() or 1) - 1
WISH = {
    "server_mode": "replica_mock",
    "model_name": "bench",
    "pool": "mock",
    "wait_for_ready": False,
    "run_diagnostics": False,
    "labels": {"bench": "create"},
}


def run(rounds: int) -> Result:
    with (
        responder() as ceiling_port,
        stack(HOSTLER_WEB_WORKERS=str(PROCESSES), HOSTLER_MAX_QUEUED_PER_POOL="1000000") as ours,
        _bare(ours) as floor_port,
    ):
        # creates must only be stored: what workers do with them is another benchmark
        ours.api.must(200, "POST", "/api/v1/pools/mock/drain")
        serial = iter(range(0, 10**11, 10**7))
        specs = {
            "ours": _spec(ours.port, ours.key),
            "floor": _spec(floor_port, ""),
        }
        for spec in specs.values():
            load.run(_for(spec, next(serial), seconds=1.5))  # first publish, pools and caches of every process
        reports: dict[str, list[load.Report]] = {"ours": [], "floor": []}

        def measure(side: str) -> float:
            report = load.run(_for(specs[side], next(serial)))
            if set(report.statuses) != {"202"}:
                raise RuntimeError(f"{side} answered {report.statuses}")
            reports[side].append(report)
            return report.per_s

        pair = alternate(lambda: measure("ours"), lambda: measure("floor"), rounds)
        single = load.run(_for(specs["ours"], next(serial), connections=1))
        ceiling = load.run(_for(_spec(ceiling_port, ""), next(serial), seconds=1.0))
        throughput = result(
            "create",
            pair,
            unit="req/s",
            goal="ratio >= 0.35",
            ok=pair.ratio >= 0.35,
            load=f"{CONNECTIONS} connections, {SECONDS:g} s a round, {PROCESSES} processes on both sides",
            pinned=f"load generator to core {CORE}; servers, Postgres and Redis free",
            warmed="1.5 s of the same load on each side",
            load_not_the_limit=f"it makes {ceiling.per_s:.0f} req/s against a fixed answer; its core was busy "
            f"{max(report.cpu_share for report in reports['ours']):.0%} with ours and "
            f"{max(report.cpu_share for report in reports['floor']):.0%} with the floor",
            p50_ms={side: seen[-1].p50_ms for side, seen in reports.items()},
        )
        tail = Result(
            "create p99/p50",
            single.p99_ms,
            single.p50_ms,
            single.p99_ms / single.p50_ms,
            "p99 <= 5x p50 at 1 connection",
            single.p99_ms <= 5 * single.p50_ms,
            "ms",
            1,
            {"requests": single.requests},
        )
        return joined("create", [throughput, tail])


def _spec(port: int, key: str) -> load.Spec:
    headers = {"Content-Type": "application/json", "Idempotency-Key": f"bench-{load.SERIAL}", "X-API-Key": key}
    return load.Spec(
        port=port,
        method="POST",
        path="/api/v1/replicas",
        headers=headers,
        body=json.dumps(WISH),
        connections=CONNECTIONS,
        core=CORE,
    )


def _for(spec: load.Spec, serial: int, seconds: float = SECONDS, connections: int = CONNECTIONS) -> load.Spec:
    return load.Spec(**{**spec.__dict__, "serial": serial, "seconds": seconds, "connections": connections})


@contextlib.contextmanager
def _bare(beside: Stack) -> Iterator[int]:
    """The bare endpoint on the Postgres and the Redis of our own stack; gives its port."""
    with psycopg.connect(beside.database_url, autocommit=True) as connection:
        connection.execute(TABLE)
    port = free_port()
    environ = {
        **os.environ,
        "FLOOR_DATABASE_URL": beside.database_url,
        "FLOOR_REDIS_SOCKET": beside.broker_url.removeprefix("redis+socket://"),
    }
    argv = [sys.executable, "-m", "gunicorn", "--worker-class", "gevent", "--workers", str(PROCESSES)]
    argv += ["--bind", f"127.0.0.1:{port}", "--no-control-socket", "--log-level", "warning"]
    server = subprocess.Popen([*argv, "benchmarks.floors.create_app:app"], env=environ, stdin=subprocess.DEVNULL)
    try:
        wait_until(lambda: _listens(port, server), 30, "the bare endpoint listens")
        yield port
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(40)
        redis.Redis(unix_socket_path=environ["FLOOR_REDIS_SOCKET"]).delete("floor:queue")


def _listens(port: int, server: subprocess.Popen[bytes]) -> bool:
    if server.poll() is not None:
        raise RuntimeError("the bare endpoint did not start")
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
