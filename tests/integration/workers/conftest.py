"""One crew for the whole folder: starting it takes seconds, and it must survive every test anyway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.settings import Settings
from tests.standins import VLLM
from tests.support.crew import Crew, crew_settings, running_crew
from tests.support.embedded import fresh_database
from tests.support.site import Site, open_site

#: Pools that tests fill, drain and order; made before the workers start.
POOLS = {"one-slot": ("mock", 1), "ordered": ("mock", 1), "drained": ("mock", 8), "late": ("mock", 1)}


@pytest.fixture(scope="package")
def crew(parts: Settings, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    folder = tmp_path_factory.mktemp("crew")
    with (
        fresh_database(parts, migrated) as url,
        running_crew(
            crew_settings(parts, url, folder, vllm_command=VLLM, external_ca=str(folder / "authority.pem")),
            folder,
            pools=POOLS,
        ) as crew,
    ):
        yield crew


@pytest.fixture
def site(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A worker and an agent, turned by hand, with a cluster of tests."""
    with open_site(settings, tmp_path, monkeypatch) as site:
        yield site
