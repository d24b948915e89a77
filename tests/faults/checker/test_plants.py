"""Each plant finds what it takes out, and takes it out: a plant that patched nothing would prove nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.harness.plants import PLACE_PLANTS, PLANTS
from tests.faults.harness.script import script

ROOT = Path(__file__).resolve().parents[3]
#: In an interpreter of its own: what is planted stays planted.
_APPLY = """
import importlib, json, sys
from tests.faults.harness.injection import Hooks

patches = importlib.import_module(f"tests.faults.harness.plants.{sys.argv[1]}").PATCHES
hooks, before = Hooks(), {}

def noting(target, wrap):
    def noted(original):
        before[target] = original
        return wrap(original)
    return noted

for target, wrap in patches.items():
    hooks.add(target, noting(target, wrap))
sys.meta_path.insert(0, hooks)
changed = {}
for target in patches:
    module, _, dotted = target.partition(":")
    found = importlib.import_module(module)
    for part in dotted.split("."):
        found = getattr(found, part)
    changed[target] = found is not before[target]
print(json.dumps(changed))
"""


@pytest.mark.parametrize("plant", [*PLANTS, *PLACE_PLANTS])
def test_a_plant_takes_hold(plant: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _APPLY, plant],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    changed = json.loads(done.stdout)
    assert changed, "it patches nothing"
    assert all(changed.values()), changed


def test_plants_are_those_of_the_folder() -> None:
    folder = ROOT / "tests" / "faults" / "harness" / "plants"
    assert {path.stem for path in folder.glob("*.py")} - {"__init__"} == {*PLANTS, *PLACE_PLANTS}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_plant_names_the_seed_of_ci_that_catches_it(plant: str) -> None:
    seed = PLANTS[plant]
    assert 1 <= seed <= 20
    assert script(seed) == script(seed), "a seed's script is always the same"
