"""What one pool gives back is given at once to another that waits for it. No sweep helps here: there is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from app.settings import Settings
from tests.support.crew import Crew, crew_settings, running_crew
from tests.support.embedded import fresh_database


@pytest.fixture(scope="module")
def unswept(parts: Settings, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    folder = tmp_path_factory.mktemp("unswept")
    with fresh_database(parts, migrated) as url:
        settings = crew_settings(parts, url, folder, sweep_interval_s=3600.0)
        # two ports in all
        settings = replace(settings, ports=(settings.ports[0], settings.ports[0] + 1))
        pools = {"gpu-a": ("process", 8), "gpu-b": ("process", 8)}
        with running_crew(settings, folder, pools=pools, roles=("worker", "worker-control", "agent")) as crew:
            yield crew


@pytest.mark.parametrize("resources", [{"gpus": 3}, {}], ids=["gpus", "ports"])
def test_another_pool_hears_of_it(unswept: Crew, resources: dict[str, int]) -> None:
    held = [unswept.create(pool="gpu-a", resources=resources)]
    if not resources:
        held.append(unswept.create(pool="gpu-a"))
    for replica in held:
        unswept.await_ready(replica)
    waits = unswept.create(pool="gpu-b", resources=resources)
    other = unswept.create(pool="mock")
    unswept.await_ready(other)
    assert unswept.replica(waits).state == "pending"
    unswept.end(held[0])
    unswept.await_ready(waits)
    unswept.end(waits, other, *held[1:])
    again = "SELECT 1 FROM sweeps WHERE tick > (SELECT min(tick) FROM sweeps WHERE tick > 0)"
    assert not unswept.rows(again), "a sweep came first"
