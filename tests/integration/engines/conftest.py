from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.engines.registry import engine
from tests.support.engines import Running, running


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A store of engine qdrant-edge, for tests that only ask."""
    top = tmp_path_factory.mktemp("store")
    with running(engine("qdrant-edge"), top / "attempt", request={"data_dir": top / "data"}) as it:
        it.wait_ready()
        yield it
