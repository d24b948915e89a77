"""One crew for the folder, in a hurry: what takes minutes in production takes seconds here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.settings import Settings
from tests.standins import SGLANG, VLLM
from tests.support.crew import Crew, crew_settings, running_crew
from tests.support.embedded import fresh_database


@pytest.fixture(scope="package")
def crew(parts: Settings, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    folder = tmp_path_factory.mktemp("repair")
    with fresh_database(parts, migrated) as url:
        programs = {"vllm_command": VLLM, "sglang_command": SGLANG}
        settings = crew_settings(parts, url, folder, deep_probe_s=2.0, lease_s=3.0, **programs)
        pools = {"hung": ("process", 16), "gpu-a": ("process", 8), "gpu-b": ("process", 8)}
        with running_crew(settings, folder, pools=pools) as crew:
            yield crew
