"""No replica without its process, no process without its replica, and each engine on its own port only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from tests.faults.harness import world
from tests.faults.harness.checker.evidence import Evidence
from tests.faults.harness.checker.owners import judge_named
from tests.faults.harness.facts import Finding
from tests.faults.harness.world import Process

#: States that say: it runs.
RUNNING = frozenset({"waiting_for_ready", "ready", "unhealthy"})


def check_processes(found: Evidence) -> Iterator[Finding]:
    alive: dict[str, list[Process]] = defaultdict(list)
    for process in found.processes:
        alive[process.name].append(process)
    attempts = {attempt.name: attempt for attempt in found.rows.open_attempts()}
    for name, processes in alive.items():
        yield from judge_named(found, "processes", name, processes, attempts.get(name))
    for pid, name in found.shims.items():
        if name.startswith("hostler-") and name not in attempts and world.identity(pid) is not None:
            yield Finding("processes", "a shim is left of an attempt that is over", {"pid": pid, "attempt": name})
    for attempt in attempts.values():
        if attempt.backend == "process" and not found.is_elsewhere(attempt):
            yield from _judge_attempt(found, attempt, alive[attempt.name])
    yield from _judge_ports(found, alive)


def _judge_attempt(found: Evidence, attempt: Any, processes: list[Process]) -> Iterator[Finding]:
    replica = found.rows.replicas.get(attempt.replica_id)
    if replica is None or replica.state not in RUNNING:
        return
    told = {"replica": replica.id, "state": replica.state, "attempt": attempt.name, "ref": attempt.backend_ref}
    engines = [process for process in processes if process.leads]
    if not engines:
        yield Finding("processes", f"a replica is {replica.state} and has no process", told)
        return
    engine = engines[0]
    told["engine"] = (engine.pid, engine.start)
    record = world.engine_record(found.run.state_dir, attempt.name) or {}
    if (record.get("pid"), record.get("start")) != (engine.pid, engine.start):
        yield Finding("processes", "the attempt's folder names another process than its engine", told)
    ref = (attempt.backend_ref or {}).get("ref") or {}
    if ref.get("pid") is not None and (ref["pid"], ref.get("start")) != (engine.pid, engine.start):
        yield Finding("processes", "the database names another process than the engine", told)
    if replica.state == "ready" and replica.port is not None:
        listening = found.listeners.get(replica.port, set())
        if not listening & {process.pid for process in processes}:
            text = "a ready replica does not listen on its port"
            yield Finding("processes", text, {**told, "port": replica.port, "listening": sorted(listening)})


def _judge_ports(found: Evidence, alive: dict[str, list[Process]]) -> Iterator[Finding]:
    names = {process.pid: name for name, processes in alive.items() for process in processes}
    ports = [lease for lease in found.rows.leases if lease.kind == "port" and lease.released_at is None]
    leased = {lease.number: lease.holder for lease in ports}
    for port, pids in found.listeners.items():
        for name in {names[pid] for pid in pids if pid in names}:
            if leased.get(port) != name:
                told = {"port": port, "engine of": name, "leased to": leased.get(port)}
                yield Finding("processes", "an engine listens on a port that is not leased to it", told)
