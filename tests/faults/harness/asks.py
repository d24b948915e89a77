"""What is asked of the models through the door, drawn by chances of its own: a new ask changes no other step of a seed.

``{"by", "model", "about", "spelled", "key", "stream"}``: ``by`` is how it says where to (``model``, ``alias``,
``replica``, ``proxy``: the replica's own address), ``model`` what an answer must come from (for an alias the model
behind it), ``about`` the name of the replica asked, ``spelled`` how the body says it, ``key`` whose request it is.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from tests.faults.harness.acts import MODELS, SPEAKING

#: How a body says which model: first, behind more than a buffer holds, with an escape in the name of the field, twice.
PLAIN, LATE, ESCAPED, TWICE = "plain", "late", "escaped", "twice"
SPELLED = {PLAIN: 8, LATE: 2, ESCAPED: 2, TWICE: 1}
#: ``limited`` may ask the first model only.
KEYS = {"admin": 3, "limited": 1}
ALLOWED = MODELS[0]
ALIAS = "alias-of-m0"
#: What somebody else's server answers for, registered as long as the seed runs.
FOREIGN = "f0"
BY = {"model": 8, "alias": 2, "replica": 3, "proxy": 1}


def asks(seed: int, born: Sequence[tuple[float, str, str]], length_s: float) -> list[tuple[float, dict[str, Any]]]:
    """When what is asked. ``born`` are the script's creates: (time, name, kind)."""
    rng = random.Random(f"hostler door {seed}")
    found: list[tuple[float, dict[str, Any]]] = []
    # those whose answers say who made them
    theirs = [(began_s, name) for began_s, name, kind in born if kind in SPEAKING]
    for _ in range(rng.randint(6, 14) if theirs else 0):
        began_s, name = rng.choice(theirs)
        at_s = min(length_s, began_s + rng.choice((0.1, 0.5, 1.0, 2.0)) + rng.random() * 0.5)
        by = rng.choices(list(BY), list(BY.values()))[0]
        model = MODELS[int(name.removeprefix("r")) % len(MODELS)]
        act: dict[str, Any] = {
            "by": by,
            "model": ALLOWED if by == "alias" else model,
            "about": name,
            "spelled": rng.choices(list(SPELLED), list(SPELLED.values()))[0],
            "key": rng.choices(list(KEYS), list(KEYS.values()))[0],
            "stream": rng.random() < 0.4,
        }
        found.append((round(at_s, 2), act))
    for _ in range(rng.randint(2, 5)):
        act = {"by": "registered", "model": FOREIGN, "about": "", "spelled": PLAIN, "key": "admin", "stream": False}
        found.append((round(rng.uniform(0.2, length_s), 2), act))
    return found
