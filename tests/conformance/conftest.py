"""One suite over every registered backend; a test is skipped only for a capability that the backend says it lacks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.domain.abilities import OUTLIVES_LEADER, OWNS_OUTPUT, RUNS_ARGV, RUNS_BARE
from tests.conformance.world import World
from tests.support.podman import Podman, podman
from tests.support.slurm import Cluster, cluster
from tests.support.sshd import Sshd, far_host
from workers.backends.base import BackendContext
from workers.backends.registry import BACKENDS, open_backend

__all__ = ["cluster", "far_host", "podman"]

#: The same backend, with its cluster's commands given on a host behind SSH.
OVER_SSH = "slurm over ssh"
#: The same, with attempts that share a job. It ends soon when nobody is in it.
SHARED = "slurm shared"
SHARING = {"replicas_per_job": 2, "job_stay_s": 1}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend_name" in metafunc.fixturenames:
        # what a program finds around it is the same in a job of its own; each of these costs a job's beginning and end
        shared = [] if metafunc.module.__name__.endswith("test_processes") else [SHARED]
        metafunc.parametrize("backend_name", [*sorted(BACKENDS), OVER_SSH, *shared])


@pytest.fixture
def context(backend_name: str, tmp_path: Path, request: pytest.FixtureRequest) -> BackendContext:
    """What the backend is told of the world; what is not this host is started once, by the first who asks."""
    context = BackendContext(state_dir=tmp_path / "state")
    if backend_name in ("ssh", OVER_SSH):
        host: Sshd = request.getfixturevalue("far_host")
        context = replace(context, run_dir=host.run_dir)
    if backend_name == "ssh":
        options = {"ssh": host.ssh, "folder": str(tmp_path / "state" / "far"), "python": sys.executable}
        return replace(context, options=options)
    if backend_name in ("slurm", OVER_SSH, SHARED):
        nodes: Cluster = request.getfixturevalue("cluster")
        more = {OVER_SSH: lambda: {"ssh": host.ssh}, SHARED: lambda: SHARING, "slurm": dict}[backend_name]()
        return replace(context, options=nodes.options(tmp_path / "state" / "slurm") | more)
    if backend_name == "docker":
        service: Podman = request.getfixturevalue("podman")
        return replace(context, options=service.options(tmp_path / "shared"))
    return context


@pytest.fixture
def world(backend_name: str, context: BackendContext, tmp_path: Path) -> Iterator[World]:
    """A backend with nothing in it; after the test nothing may be left."""
    world = World(open_backend(backend_name.partition(" ")[0], context), tmp_path, context.options)
    yield world
    world.clean()


@pytest.fixture
def processes(world: World) -> World:
    """The same, for what only a backend that runs programs can show."""
    if RUNS_ARGV in world.backend.lacks:
        pytest.skip(f"{world.backend.name} declares that it lacks {RUNS_ARGV}")
    return world


@pytest.fixture
def bare(processes: World) -> World:
    """The same, for what only a process without an init around it can show."""
    return _with(processes, RUNS_BARE)


@pytest.fixture
def leaving(processes: World) -> World:
    """The same, for what programs leave behind."""
    return _with(processes, OUTLIVES_LEADER)


@pytest.fixture
def keeping(processes: World) -> World:
    """The same, for output that we keep ourselves."""
    return _with(processes, OWNS_OUTPUT)


def _with(world: World, capability: str) -> World:
    if capability in world.backend.lacks:
        pytest.skip(f"{world.backend.name} declares that it lacks {capability}")
    return world
