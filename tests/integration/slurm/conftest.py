"""A Slurm backend on a real cluster of two nodes, and what launches on it need."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.world import WAIT_S, World
from tests.support.embedded import wait_until
from tests.support.slurm import Cluster, cluster
from workers.backends.base import BackendContext
from workers.backends.slurm import SlurmBackend

__all__ = ["cluster"]


@pytest.fixture
def world(cluster: Cluster, tmp_path: Path) -> Iterator[World]:
    """A backend with nothing in it; after the test the cluster is whole again and nothing is left of it."""
    options = cluster.options(tmp_path / "state" / "slurm")
    backend = SlurmBackend(BackendContext(state_dir=tmp_path / "state", options=options))
    world = World(backend, tmp_path, options)
    yield world
    cluster.repair()
    world.clean()
    # one that is shared ends a moment after the last attempt in it
    wait_until(lambda: not _jobs(cluster, world), 3 * WAIT_S, f"the end of {_jobs(cluster, world)}")


@pytest.fixture
def shared(world: World) -> World:
    """Each job has four seats."""
    world.options = {**world.options, "replicas_per_job": 4, "job_stay_s": 1}
    return world


def _jobs(cluster: Cluster, world: World) -> list[list[str]]:
    return [job for job in cluster.jobs() if job[1].startswith(world.prefix)]


@pytest.fixture
def server() -> tuple[str, ...]:
    """The argv of a program that listens where it is told on the node, and says so."""
    code = (
        "import socket, sys, time\n"
        "server = socket.create_server((sys.argv[2], int(sys.argv[1])))\n"
        "print('listening', flush=True)\n"
        "while True: time.sleep(60)"
    )
    return (sys.executable, "-I", "-c", code, "@HOSTLER_PORT@", "@HOSTLER_HOST@")
