"""``python -m tests.faults.harness [SEEDS] [--plant NAME] [--script]``: see ``README.md``.

SEEDS is a list such as ``7,8,100-120``; without it ``1-200``. The plant may be named by ``HOSTLER_FAULT_PLANT`` too.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys

from tests.faults.harness.injection import PLANT
from tests.faults.harness.plants import PLACE_PLANTS, PLANTS
from tests.faults.harness.runner import run_seeds, say
from tests.faults.harness.script import as_json, script

#: A seed that has to wait out everything takes this long; most take a tenth.
PER_SEED_S = 20.0
LEAST_S = 300.0


def seeds_of(text: str) -> list[int]:
    """``7,9-11`` -> 7, 9, 10, 11. Raises ArgumentTypeError for what is no list of seeds."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not (first.isdigit() and (last.isdigit() or not dash) and int(first) <= int(last or first)):
            raise argparse.ArgumentTypeError(f"{part!r} is no seed and no range; say for example 7,9-11")
        found += range(int(first), int(last or first) + 1)
    return found


def plant_of(name: str) -> str:
    """Raises ArgumentTypeError for an unknown one."""
    if name and name not in PLANTS | PLACE_PLANTS:
        raise argparse.ArgumentTypeError(f"there is no plant {name!r}; there are {', '.join(PLANTS | PLACE_PLANTS)}")
    return name


def main() -> int:
    parser = argparse.ArgumentParser(prog="make faults", description="break a running stack, and see what holds")
    parser.add_argument("seeds", nargs="?", type=seeds_of, default="1-200", help="which, for example 7,9-11 (1-200)")
    parser.add_argument(
        "--plant", type=plant_of, default=os.environ.get(PLANT, ""), help="plant this bug into the stack's processes"
    )
    parser.add_argument("--first", action="store_true", help="stop at the first seed that finds something")
    parser.add_argument("--script", action="store_true", help="only print the scripts, as JSON")
    asked = parser.parse_args()
    # told to end: the stack must not be left behind
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if asked.script:
        for seed in asked.seeds:
            say(as_json(script(seed)))
        return 0
    return run_seeds(
        asked.seeds, plant=asked.plant, first=asked.first, limit_s=max(LEAST_S, PER_SEED_S * len(asked.seeds))
    )


if __name__ == "__main__":
    sys.exit(main())
