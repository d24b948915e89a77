"""All that the checks look at, gathered once per seed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tests.faults.harness import far_world, world
from tests.faults.harness.checker.requests import Request, read_journal, requests_of
from tests.faults.harness.checker.rows import Rows, read_rows
from tests.faults.harness.facts import RunFacts
from tests.faults.harness.far_world import Connection, Container, FarProcess, Job
from tests.faults.harness.world import Process, Server

#: Backends that run things in other places.
ELSEWHERE = frozenset({"slurm", "ssh", "docker"})


@dataclass
class Far:
    """Other places, in the words of their parts. None for a part that could not be asked."""

    jobs: list[Job] | None
    containers: list[Container] | None
    processes: list[FarProcess]
    connections: list[Connection]
    #: Podman's, that no container has, and its networks
    volumes: list[str] | None = None
    networks: list[str] | None = None


@dataclass
class Evidence:
    """``journal`` and ``requests`` are this seed's; ``all_requests`` those of the stack's whole life."""

    run: RunFacts
    journal: list[dict[str, Any]]
    requests: list[Request]
    all_requests: list[Request]
    rows: Rows
    processes: list[Process]
    shims: dict[int, str]
    listeners: dict[int, set[int]]
    starts: dict[str, int]
    #: what HAProxy holds; None when it could not be asked
    routed: list[Server] | None
    #: when it was gathered, unix seconds
    at: float
    #: faults that the stack has had in its whole life
    faults: set[str]
    #: what other places say; None for a stack that runs on this host only
    far: Far | None = None

    @property
    def deleted(self) -> set[str]:
        """Replicas that the stack may have been told to forget."""
        return {one for request in self.all_requests if (one := request.deletes())}

    def is_of_service(self, request: Request) -> bool:
        """About a service, not about one replica: what its replicas do follows from it."""
        task = self.rows.tasks.get(request.cancels or "")
        if task is not None:
            return task.replica_id is None
        return request.path.startswith(("/api/v1/services", "/api/v1/service-groups"))

    def is_elsewhere(self, attempt: Any) -> bool:
        """Whether it runs in another place than this host."""
        places = self.run.stack.places
        return attempt.backend in ELSEWHERE or (places is not None and attempt.node == places.node)

    @property
    def controller_was_killed(self) -> bool:
        """The cluster's, which then forgets what it did in its last seconds."""
        return any(line["op"] == "fault" and line["name"] == "kill-controller" for line in self.journal)

    @cached_property
    def known(self) -> dict[str, Request]:
        """The requests by the id they were sent with."""
        return {request.request_id: request for request in self.all_requests}


def gather(run: RunFacts) -> Evidence:
    """Read everything. The processes come after the rows: who is gone by the rows must not be seen any more."""
    journal = read_journal(run.folder)
    of_seed = [line for line in journal if line["seed"] == run.seed and line["at"] >= run.begun_at - 1]
    rows = read_rows(run.database_url, run.after_event, run.after_task)
    return Evidence(
        run=run,
        journal=of_seed,
        requests=requests_of(of_seed),
        all_requests=requests_of(journal),
        rows=rows,
        processes=world.processes(run.state_dir),
        shims=world.shims(run.state_dir),
        listeners=world.listeners(),
        starts=world.told_starts(run.folder, run.state_dir),
        routed=world.routed(run.stack.haproxy_socket),
        at=time.time(),
        faults={line["name"] for line in journal if line["op"] == "fault"},
        far=_far(run) if run.stack.places is not None else None,
    )


def _far(run: RunFacts) -> Far:
    places = run.stack.places
    assert places is not None
    return Far(
        jobs=far_world.jobs(places),
        containers=far_world.containers(places),
        processes=far_world.processes(places, run.state_dir),
        connections=far_world.connections(run.state_dir),
        volumes=far_world.volumes(places),
        networks=far_world.networks(places),
    )
