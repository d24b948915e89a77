"""Other places say the same as the database: what runs there is a replica's, and what is said to run there does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from tests.faults.harness.checker.evidence import Evidence, Far
from tests.faults.harness.checker.owners import judge_named
from tests.faults.harness.checker.processes import RUNNING
from tests.faults.harness.facts import Finding
from tests.faults.harness.far_world import FarProcess, Job, is_closed

#: What keeps a connection ends a while after the last use; more of one kind is a leak.
MOST_CONNECTIONS = 6


def check_places(found: Evidence) -> Iterator[Finding]:
    far = found.far
    if far is None:
        return
    alive: dict[str, list[FarProcess]] = defaultdict(list)
    for process in far.processes:
        alive[process.name].append(process)
    attempts = {one.name: one for one in found.rows.open_attempts() if found.is_elsewhere(one)}
    for name, processes in alive.items():
        yield from judge_named(found, "places", name, processes, attempts.get(name))
    for attempt in attempts.values():
        yield from _judge_attempt(found, attempt, alive[attempt.name])
    yield from _judge_jobs(found, far, attempts)
    yield from _judge_devices(far)
    yield from _judge_containers(found, far, attempts)
    yield from _judge_tunnels(found, far, attempts)
    if len(far.connections) > MOST_CONNECTIONS:
        told = {"connections": [f"{one.pid} {one.role}" for one in far.connections]}
        yield Finding("places", "connections to one host pile up", told)


def _judge_attempt(found: Evidence, attempt: Any, processes: list[FarProcess]) -> Iterator[Finding]:
    replica = found.rows.replicas.get(attempt.replica_id)
    if replica is None or replica.state not in RUNNING:
        return
    told = {"replica": replica.id, "state": replica.state, "attempt": attempt.name, "backend": attempt.backend}
    if not processes:
        if replica.state == "unhealthy" and attempt.backend == "slurm":
            return  # its job may wait to begin anew, which is judged with the jobs
        yield Finding("places", f"a replica is {replica.state} and nothing of it runs elsewhere", told)
        return
    if replica.state == "ready":
        listening = found.listeners.get(replica.port, set())
        if not listening & {process.pid for process in processes}:
            told = {**told, "address": f"{replica.host}:{replica.port}", "listening": sorted(listening)}
            yield Finding("places", "a ready replica does not listen elsewhere where it is said to", told)


def _judge_jobs(found: Evidence, far: Far, attempts: dict[str, Any]) -> Iterator[Finding]:
    if far.jobs is None:
        if found.run.converged:
            yield Finding("places", "the cluster does not answer though all should be at rest", {})
        return
    jobs: dict[str, list[Job]] = defaultdict(list)
    for job in far.jobs:
        if not job.is_over:
            jobs[job.name].append(job)
    seated = {attempt.job_id for attempt in attempts.values()}
    for name, held in jobs.items():
        told = {"attempt": name, "jobs": [f"{job.id} {job.state}" for job in held]}
        if held[0].is_shared:
            yield from _judge_shared(found, held, seated)
            continue
        # a killed controller forgets ends too, until the node tells it again; a job of which nothing runs is its own
        forgotten = found.controller_was_killed and not any(process.name == name for process in far.processes)
        if name not in attempts and not forgotten:
            yield Finding("places", "a job is left of an attempt that is over or unknown", told)
        if len(held) > 1:
            yield Finding("places", "an attempt has more than one job", told)
    shared = {job.id: job for job in far.jobs if job.is_shared and not job.is_over}
    for attempt in attempts.values():
        replica = found.rows.replicas.get(attempt.replica_id)
        held = jobs[attempt.name] or [job for job in (shared.get(attempt.job_id),) if job is not None]
        if attempt.backend == "slurm" and replica is not None and replica.state in RUNNING:
            yield from _judge_job(attempt, replica, held)
        if attempt.replica_id in found.rows.held and [job.state for job in held] != ["PENDING"]:
            yield Finding("places", "a replica is said to wait in a queue where it does not", {"attempt": attempt.name})


def _judge_shared(found: Evidence, held: list[Job], seated: set[str | None]) -> Iterator[Finding]:
    told = {"job": held[0].name, "jobs": [f"{job.id} {job.state}" for job in held]}
    # a killed controller forgets ends, and begins such a job anew minutes later, which then ends at once
    forgotten = "kill-controller" in found.faults and is_closed(held[0], found.run.folder / "shared")
    if found.run.converged and not forgotten and not seated & {job.id for job in held}:
        yield Finding("places", "a shared job is left in which no attempt has a seat", told)
    if len(held) > 1:
        yield Finding("places", "a shared job was submitted twice", told)


def _judge_job(attempt: Any, replica: Any, held: list[Job]) -> Iterator[Finding]:
    if replica.state == "unhealthy" and any(job.state == "PENDING" for job in held):
        return  # the cluster begins it anew, and that is what is said
    running = [job.id for job in held if job.state == "RUNNING"]
    told = {"replica": replica.id, "state": replica.state, "attempt": attempt.name, "job": attempt.job_id}
    if not running:
        yield Finding("places", f"a replica is {replica.state} and its job does not run", told)
    elif attempt.job_id is not None and attempt.job_id not in running:
        yield Finding("places", "the database names another job than the cluster", {**told, "running": running})


def _judge_devices(far: Far) -> Iterator[Finding]:
    holders: dict[str, set[str]] = defaultdict(set)
    for process in far.processes:
        for device in process.devices if process.leads else ():
            holders[device].add(process.name)
    for device, names in holders.items():
        if len(names) > 1:
            yield Finding("places", "two attempts have the same GPU", {"gpu": device, "attempts": sorted(names)})


def _judge_containers(found: Evidence, far: Far, attempts: dict[str, Any]) -> Iterator[Finding]:
    if far.containers is None:
        if found.run.converged:
            yield Finding("places", "Podman does not answer though all should be at rest", {})
        return
    running: dict[str, list[str]] = defaultdict(list)
    for one in far.containers:
        if one.is_living:
            running[one.attempt].append(f"{one.id[:12]} {one.state}")
    for name, held in running.items():
        told = {"attempt": name, "containers": held}
        if name not in attempts:
            yield Finding("places", "a container is left of an attempt that is over or unknown", told)
        if len(held) > 1:
            yield Finding("places", "an attempt has more than one container", told)
    for attempt in attempts.values():
        replica = found.rows.replicas.get(attempt.replica_id)
        said_to_run = attempt.backend == "docker" and replica is not None and replica.state in RUNNING
        if said_to_run and not running[attempt.name]:
            told = {"replica": attempt.replica_id, "attempt": attempt.name}
            yield Finding("places", "a replica is said to run and its container does not", told)


def _judge_tunnels(found: Evidence, far: Far, attempts: dict[str, Any]) -> Iterator[Finding]:
    """Each local end is an open attempt's, on a port that is leased to it, and no other is kept."""
    by_id = {attempt.id: attempt for attempt in attempts.values()}
    leased = {
        (lease.scope, lease.number): lease.holder
        for lease in found.rows.leases
        if lease.kind == "port" and lease.released_at is None
    }
    keepers = {one.pid for one in far.connections if one.role == "tunnels"}
    known = set()
    for tunnel in found.rows.tunnels:
        attempt = by_id.get(tunnel.attempt_id)
        told = {"attempt": attempt.name if attempt else tunnel.attempt_id, "port": tunnel.port, "state": tunnel.state}
        known.add(tunnel.port)
        if attempt is None:
            yield Finding("places", "a tunnel is kept for an attempt that is over", told)
            continue
        if leased.get((tunnel.node, tunnel.port)) != attempt.name:
            yield Finding("places", "the port of a tunnel is not leased to its attempt", told)
        replica = found.rows.replicas.get(attempt.replica_id)
        if replica is None or replica.state != "ready":
            continue
        if tunnel.state != "up" or (tunnel.to_host, tunnel.to_port) != (replica.host, replica.port):
            told |= {"leads to": f"{tunnel.to_host}:{tunnel.to_port}", "is at": f"{replica.host}:{replica.port}"}
            yield Finding("places", "the tunnel of a ready replica does not lead to it", told)
        elif not found.listeners.get(tunnel.port, set()) & keepers:
            yield Finding("places", "nobody keeps the tunnel of a ready replica", told)
    if found.run.converged:
        for port, pids in found.listeners.items():
            if pids & keepers and port not in known:
                yield Finding("places", "a tunnel is kept that is written nowhere", {"port": port})
