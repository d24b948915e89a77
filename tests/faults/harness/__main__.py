"""``python -m tests.faults.harness [SEEDS] [--plant NAME] [--script]``: see ``README.md``.

SEEDS is a number (so many, from 1) or a list such as ``7,8,100-120``; without it 200.
"""

from __future__ import annotations

import argparse
import signal
import sys

from tests.faults.harness.plants import PLANTS
from tests.faults.harness.runner import run_seeds, say
from tests.faults.harness.script import as_json, script

#: A seed that has to wait out everything takes this long; most take a tenth.
PER_SEED_S = 20.0
LEAST_S = 300.0


def seeds_of(text: str) -> list[int]:
    """``20`` -> 1..20; ``7,9-11`` -> 7, 9, 10, 11; ``7,`` -> 7."""
    if text.isdigit():
        return list(range(1, int(text) + 1))
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1) if part else []
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="make faults", description="break a running stack, and see what holds")
    parser.add_argument("seeds", nargs="?", default="200", help="how many (200), or which: 7,9-11 (one: 7,)")
    parser.add_argument("--plant", default="", choices=["", *PLANTS], help="plant this bug into the stack's processes")
    parser.add_argument("--first", action="store_true", help="stop at the first seed that finds something")
    parser.add_argument("--script", action="store_true", help="only print the scripts, as JSON")
    asked = parser.parse_args()
    # told to end: the stack must not be left behind
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    seeds = seeds_of(asked.seeds)
    if asked.script:
        for seed in seeds:
            say(as_json(script(seed)))
        return 0
    return run_seeds(seeds, plant=asked.plant, first=asked.first, limit_s=max(LEAST_S, PER_SEED_S * len(seeds)))


if __name__ == "__main__":
    sys.exit(main())
