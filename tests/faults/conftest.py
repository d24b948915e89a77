"""One crew with short leases for the whole folder, and workers that can be killed or frozen at any line beside it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.settings import Settings
from tests.faults.stepper import POOL
from tests.faults.steppers import Steppers, open_steppers
from tests.support.crew import Crew, crew_settings, running_crew
from tests.support.embedded import fresh_database


@pytest.fixture(scope="package")
def crew(parts: Settings, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    folder = tmp_path_factory.mktemp("faults")
    with fresh_database(parts, migrated) as url:
        # the API is started by the tests that kill it
        settings = crew_settings(parts, url, folder, lease_s=2.0, probe_interval_s=1.0, web_workers=1)
        pools = {POOL: ("process", 64), "silent": ("mock", 16), "tight": ("mock", 2)}
        with running_crew(settings, folder, pools=pools) as crew:
            yield crew


@pytest.fixture(scope="package")
def steppers(crew: Crew) -> Iterator[Steppers]:
    with open_steppers(crew, crew.folder / "steps") as steppers:
        yield steppers
