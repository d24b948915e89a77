"""A process backend with nothing in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.world import World
from workers.backends.base import BackendContext
from workers.backends.process import ProcessBackend


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """After the test nothing may be left of what it launched."""
    world = World(ProcessBackend(BackendContext(state_dir=tmp_path / "state")), tmp_path)
    yield world
    world.clean()
