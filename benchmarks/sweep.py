"""``sweep``: 10,000 ready replicas claimed, probed and written by one process, beside raw probes and one UPDATE.

The rows are real, of a node and a backend of the benchmark's own, so the stack's agent leaves them alone. All answer at
one port: what is measured is the sweep, not ten thousand servers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import psycopg

from app.usecases import watching
from benchmarks.floors import probes
from benchmarks.responder import responder
from benchmarks.result import Result, alternate, joined, result
from benchmarks.stack import Stack, stack
from workers.backends.base import (
    LOG_PART_BYTES,
    BackendContext,
    Fingerprint,
    Handle,
    Launch,
    Liveness,
    LogPart,
    Observation,
)
from workers.backends.registry import BACKENDS
from workers.bootstrap import Runtime
from workers.probes.batch import Prober
from workers.rounds import Rounds
from workers.watch import Watch

LARGE, SMALL = 10_000, 100
GOAL = "ratio <= 3"
FLAT_GOAL = "cost per replica at 10,000 <= 1.3x at 100"
NODE = BACKEND = "bench"
FILL = """
INSERT INTO backends (name, host_bound, serves_http) VALUES ('bench', false, true) ON CONFLICT DO NOTHING;
INSERT INTO pools (name, backend, slots) VALUES ('bench', 'bench', 0) ON CONFLICT DO NOTHING;
DELETE FROM replicas WHERE pool = 'bench';
"""
REPLICAS = """
INSERT INTO replicas (id, owner, pool, backend, engine, server_mode, model_name, spec, priority, state, node, host,
                      port, last_health, timestamps)
SELECT lpad(to_hex(g), 12, '0'), (SELECT id FROM keys LIMIT 1), 'bench', 'bench', 'mock', 'replica_mock', 'bench',
       '{"resolved": {"config": {}}}', 2, 'ready', 'bench', '127.0.0.1', %s,
       jsonb_build_object('healthy', true, 'at', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')),
       '{"ready": "2026-01-01T00:00:00+00:00"}'
FROM generate_series(1, %s) g
"""
ATTEMPTS = """
INSERT INTO attempts (replica_id, number, name, pool, backend, node, host, port, backend_ref, launching_at)
SELECT id, 1, 'bench-' || id, 'bench', 'bench', 'bench', '127.0.0.1', port, '{"ref": {}}', now()
FROM replicas WHERE pool = 'bench'
"""


class Bench:
    """A backend whose things always run and answer at their port."""

    name = BACKEND
    summary = "For the sweep benchmark."
    place_options: tuple[str, ...] = ()
    host_bound = False
    serves_http = True
    queues = False
    puts_address = False
    lacks: frozenset[str] = frozenset()
    options_schema: Mapping[str, Any] = {}

    def __init__(self, context: BackendContext) -> None:
        self._running = Observation(Liveness.RUNNING)

    def fingerprint(self, options: Mapping[str, Any], timeout_s: float = 5) -> Fingerprint:
        return Fingerprint(True)

    def prepare(self) -> None:
        return

    def adopt(self, name: str, timeout_s: float = 5) -> Handle | None:
        return Handle(self.name, name)

    def launch(self, launch: Launch, timeout_s: float = 20) -> Handle:
        raise NotImplementedError

    def inspect(self, handles: Sequence[Handle], timeout_s: float = 5) -> list[Observation]:
        return [self._running for _ in handles]

    def stop(self, handle: Handle, *, grace_s: float, force: bool = False, timeout_s: float = 5) -> Observation:
        raise NotImplementedError

    def logs(self, handle: Handle, *, tail: int | None = None, timeout_s: float = 5) -> Iterator[str]:
        return iter(())

    def read_log(self, handle: Handle, place: str = "", limit: int = LOG_PART_BYTES, timeout_s: float = 5) -> LogPart:
        return LogPart(b"", place)

    def tail_place(self, handle: Handle, lines: int, timeout_s: float = 5) -> str:
        return ""

    def close(self, handle: Handle, timeout_s: float = 5) -> None:
        return None

    def watch_fd(self, handle: Handle) -> int | None:
        return None

    def recall(self, name: str) -> None:
        return None

    def tidy(self, *, dry_run: bool = False) -> list[str]:
        return []

    def list_marked(self, prefix: str) -> list[str]:
        return []


def run(rounds: int) -> Result:
    BACKENDS[BACKEND] = Bench
    with stack() as ours, responder() as port, Prober() as prober:
        runtime = Runtime(replace(ours.settings, node_name=NODE), "bench")
        watch = Watch(runtime)
        try:
            small = _measure(ours, watch, Rounds(watch, prober, _follow_none, NODE), port, SMALL, rounds)
            large = _measure(ours, watch, Rounds(watch, prober, _follow_none, NODE), port, LARGE, rounds)
        finally:
            watch.close()
            runtime.ctx.close()
    per_large, per_small = 1000 * large.ours / LARGE, 1000 * small.ours / SMALL
    flat = Result(
        "sweep per replica",
        per_large,
        per_small,
        per_large / per_small,
        FLAT_GOAL,
        per_large <= 1.3 * per_small,
        "us",
        rounds,
        {"beside": "the same sweep of 100 replicas"},
    )
    return joined("sweep", [large, flat, small])


def _follow_none(rows: Sequence[Any]) -> None:
    """The agent follows the processes of what is new; here there are none."""


def _measure(ours: Stack, watch: Watch, agent: Rounds, port: int, count: int, rounds: int) -> Result:
    with psycopg.connect(ours.database_url, autocommit=True) as database:
        for statement in FILL.strip().split(";\n"):
            database.execute(statement.rstrip(";").encode())
        database.execute(REPLICAS, (port, count))
        database.execute(ATTEMPTS)
        database.execute("VACUUM ANALYZE replicas")
        database.execute("VACUUM ANALYZE attempts")
        probes.make_rows(ours.database_url, count)
        # the first claims every row and looks at it in full
        cold_ms = _sweep(watch, agent, count)
        probes.sweep(ours.database_url, port, count)
        pair = alternate(
            lambda: _sweep(watch, agent, count), lambda: 1000 * probes.sweep(ours.database_url, port, count), rounds
        )
    return result(
        f"sweep {count}",
        pair,
        unit="ms",
        goal=GOAL,
        ok=pair.ratio <= 3,
        warmed="one sweep on each side",
        first_ms=round(cold_ms, 1),
        written="the stored probes of a quarter of the replicas in each of our sweeps, of all in the floor's",
        pinned="nothing",
        load_not_the_limit="both sides ask the same responder, which answers some 70,000 requests a second",
    )


def _sweep(watch: Watch, agent: Rounds, count: int) -> float:
    """Milliseconds of the agent's own turn: what is due, then a round: hold, read, inspect, probe, judge, write."""
    started = time.perf_counter()
    here = watch.ctx.settings.node_name
    due = [row for node in (here, None) for row in watching.claim_due(watch.ctx, node)]
    seen = agent.turn()
    took = time.perf_counter() - started
    if due or seen != count:
        raise RuntimeError(f"{seen} of {count} replicas were looked at, and {len(due)} were due")
    return 1000 * took
