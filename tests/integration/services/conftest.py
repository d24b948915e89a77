"""One crew for the folder: a host with four GPUs, a vLLM stand-in, and agents that bring services on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.settings import Settings
from tests.integration.services.serving import Serving
from tests.standins import VLLM
from tests.support.crew import crew_settings, running_crew
from tests.support.embedded import fresh_database

POOLS = {"few": ("mock", 4), "silent": ("mock", 32)}


@pytest.fixture(scope="package")
def serving(parts: Settings, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("services")
    with (
        fresh_database(parts, migrated) as url,
        running_crew(
            crew_settings(parts, url, folder, vllm_command=VLLM, lease_s=3.0),
            folder,
            pools=POOLS,
        ) as crew,
    ):
        yield Serving(crew)
