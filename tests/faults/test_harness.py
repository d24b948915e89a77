"""The harness itself, and its CI run: 20 seeds on one stack hold, and each planted bug is found by one of them."""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Iterator

import pytest

from tests.faults.harness import starts
from tests.faults.harness.__main__ import seeds_of
from tests.faults.harness.asks import BY, KEYS, SPELLED
from tests.faults.harness.failpoints import DOOR_POINTS, POINTS, SERVICE_POINTS
from tests.faults.harness.faults import DOOR, FAULTS, SERVICES
from tests.faults.harness.places.points import PLACE_POINTS
from tests.faults.harness.plants import PLACE_PLANTS, PLANTS
from tests.faults.harness.script import CI_SEEDS, as_json, script
from tests.faults.harness.services import KINDS, OF, PATH
from tests.faults.harness_run import folder, must_find, run
from tests.support.sampling import sampled

__all__ = ["folder"]


def patched() -> Iterator[str]:
    points = (*POINTS.values(), *DOOR_POINTS.values(), *SERVICE_POINTS.values(), *PLACE_POINTS.values())
    yield from (point.target for point in points)
    yield from starts.PATCHES
    for plant in (*PLANTS, *PLACE_PLANTS):
        yield from importlib.import_module(f"tests.faults.harness.plants.{plant}").PATCHES


@pytest.mark.parametrize("target", sorted(set(patched())))
def test_what_is_changed_from_outside_is_still_there(target: str) -> None:
    module, _, dotted = target.partition(":")
    found: object = importlib.import_module(module)
    for name in dotted.split("."):
        found = getattr(found, name)


def test_a_seed_means_the_same_script_in_every_process(folder: str) -> None:
    done = run("1-30", "--script", folder=folder, timeout_s=60, PYTHONHASHSEED="7")
    assert done.stdout.splitlines() == [as_json(script(seed)) for seed in range(1, 31)], done.stderr


def test_the_ci_seeds_use_every_fault_and_ask_for_everything() -> None:
    steps = [step for seed in range(1, CI_SEEDS + 1) for step in script(seed)]
    assert {step.what for step in steps} == {"request", "ask", *FAULTS, *DOOR, *SERVICES}
    asked = {(step.arguments["method"], step.arguments["path"]) for step in steps if step.what == "request"}
    for verb in ("stop", "restart", "health", "diagnose"):
        assert ("POST", f"/api/v1/replicas/{{id}}/{verb}") in asked
    for verb in ("scale", "status", "pause", "resume", "rollback"):
        assert ("POST", f"{PATH}/{{service}}/{verb}") in asked
    assert ("PATCH", f"{PATH}/{{service}}") in asked
    made = [step.arguments for step in steps if "makes" in step.arguments]
    assert {act["kind"] for act in made if act.get("of") == OF} >= set(KINDS)
    bodies = [act["body"] for act in made if act.get("of") != OF]
    assert {body["server_mode"] for body in bodies} == {"replica", "replica_mock", "platform_workload"}
    assert {body["pool"] for body in bodies} == {"local", "tight", "mock", "few"}
    models = [step.arguments for step in steps if step.what == "ask"]
    drawn = {"by": (*BY, "registered", OF), "key": KEYS, "spelled": SPELLED, "stream": (True, False)}
    for name, values in drawn.items():
        assert {act[name] for act in models} == set(values)


def test_seeds_are_a_list_with_ranges() -> None:
    assert seeds_of("3") == [3]
    assert seeds_of("7,9-11") == [7, 9, 10, 11]


@pytest.mark.parametrize("wrong", ["", "7,", "x", "9-7", "3-", "-3"])
def test_what_is_no_list_of_seeds_is_told(wrong: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="no seed and no range"):
        seeds_of(wrong)


def test_an_unknown_plant_is_told_before_anything_starts(folder: str) -> None:
    done = run("1", folder=folder, timeout_s=60, HOSTLER_FAULT_PLANT="no_such")
    assert done.returncode == 2
    assert "there is no plant 'no_such'" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_seeds_find_nothing(folder: str) -> None:
    seeds = os.environ.get("FAULT_SEEDS", f"1-{CI_SEEDS}")
    done = run(seeds, folder=folder, timeout_s=800)
    assert done.returncode == 0, f"{done.stdout[-20000:]}\n{done.stderr[-4000:]}"
    verdict = f"faults: ok: {len(seeds_of(seeds))} seeds in "
    assert done.stdout.splitlines()[-1].startswith(verdict), done.stdout[-2000:]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("plant", sampled(sorted(plant for plant, seed in PLANTS.items() if seed)))
def test_a_planted_bug_is_found(plant: str, folder: str) -> None:
    seed = PLANTS[plant]
    assert 1 <= seed <= CI_SEEDS
    must_find(plant, seed, folder)
