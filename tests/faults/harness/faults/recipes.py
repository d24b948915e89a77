"""A recipe's file is spoiled while it is used, and mended; or it says something new."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from typing import Any

from tests.faults.harness.faults.base import Hit
from tests.faults.harness.stack import RECIPE, FaultyStack, recipe_path

#: What an editor, a full disk or a slip of the hand leaves.
SPOILED = {
    "cut": RECIPE[: len(RECIPE) // 2] + "\n  - {",
    "empty": "",
    "unknown-engine": RECIPE.replace("engine: mock", "engine: no-such"),
    "no-text": "\x00\x01\x02",
    "gone": None,
}


class SpoilRecipe:
    """What was asked before goes on, and what is asked meanwhile gets what the file last said that could be served."""

    weight = 4

    def draw(self, rng: random.Random) -> Mapping[str, Any]:
        # a file that is gone is no broken one: its recipe is unknown then, which is an answer too
        return {"how": rng.choice([*SPOILED, "changed"]), "for_s": round(rng.uniform(0.8, 2.0), 2)}

    def inject(self, stack: FaultyStack, arguments: Mapping[str, Any]) -> Hit:
        how = arguments["how"]
        if how == "changed":
            _write(stack, RECIPE + "labels:\n  said: anew\n")
        elif SPOILED[how] is None:
            recipe_path(stack.folder).unlink(missing_ok=True)
        else:
            _write(stack, str(SPOILED[how]))
        return {"how": how}

    def heal(self, stack: FaultyStack, arguments: Mapping[str, Any], hit: Hit) -> None:
        _write(stack, RECIPE)


def _write(stack: FaultyStack, text: str) -> None:
    """In place, as editors do: a reader may find a part of it."""
    with open(recipe_path(stack.folder), "w", encoding="utf-8") as file:
        half = len(text) // 2
        file.write(text[:half])
        file.flush()
        os.fsync(file.fileno())
        file.write(text[half:])
