"""Real V2 servers, and a registry that names the one it is told to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.cli.stub import Answer, Stub, problem, serve
from tests.support.v2 import V2Server, v2_server
from tests.support.venvs import NotInstalled


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[V2Server]:
    """One for the tests that leave it running."""
    with ExitStack() as stack:
        try:
            yield stack.enter_context(v2_server(tmp_path_factory.mktemp("v2") / "server"))
        except NotInstalled as error:
            pytest.skip(str(error))


@pytest.fixture
def another(tmp_path: Path) -> Iterator[Callable[[], V2Server]]:
    """Makes servers that a test may kill."""
    with ExitStack() as stack:
        made: list[V2Server] = []

        def make() -> V2Server:
            try:
                made.append(stack.enter_context(v2_server(tmp_path / f"v2-{len(made)}")))
            except NotInstalled as error:
                pytest.skip(str(error))
            return made[-1]

        yield make


@pytest.fixture
def registry() -> Iterator[Stub]:
    with serve(Stub()) as served:
        yield served


def names(registry: Stub, *endpoints: str) -> None:
    """``GET /route`` names these, one after the other, and the last one for ever; "" is nobody."""
    answers = [
        Answer(body={"endpoint": endpoint, "replica_id": f"r{place}"})
        if endpoint
        else problem(404, "no_match", "no matching replica")
        for place, endpoint in enumerate(endpoints, 1)
    ]
    registry.on("GET", "/route", *answers)
