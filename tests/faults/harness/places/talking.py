"""Who talks in other places, and who listens: an engine that says numbers, followed and read while things break. And
who has nothing to say: a program that is not there.

Drawn by chances of their own, so that they draw no other step anew.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import Any

from tests.faults.harness.acts import Act, plain_stop
from tests.faults.harness.places.acts import Drawn
from tests.faults.harness.places.pools import PLACES

NAME, KIND = "talks", "talks"
#: What stands in a script for the words that begin its command, which are this machine's.
_TALKER = "{talker}"
#: How many of them are stopped before the end.
STOPPED = 0.3
#: How many seeds have a program that is not there.
MISSING = 0.5


def draw(seed: int, length_s: float) -> list[Drawn]:
    """One in a pool in turn, with one who follows from the beginning, one from later on, and one who reads."""
    rng = random.Random(f"hostler talks {seed}")
    at_s = round(rng.uniform(0, 0.8), 2)
    found: list[Drawn] = [(at_s, "request", talker(NAME, list(PLACES)[seed // 2 % len(PLACES)]))]
    for after_s in (0.1, rng.uniform(2, 3)):
        found.append((round(at_s + after_s, 2), "follow", {"about": NAME}))
    for _ in range(rng.randint(1, 3)):
        tail = rng.choice(("", "", "?tail=20"))
        look = {"method": "GET", "path": f"/api/v1/replicas/{{id}}/logs{tail}", "body": None, "about": NAME}
        found.append((round(rng.uniform(at_s + 1, length_s), 2), "request", look))
    if rng.random() < STOPPED:
        found.append((round(rng.uniform(3.5, length_s), 2), "request", plain_stop(NAME, 1)))
    if rng.random() < MISSING:
        missing = _create("missing", list(PLACES)[-1 - seed // 2 % len(PLACES)], "/no/such/program")
        found.append((round(rng.uniform(0, 2), 2), "request", missing))
    return found


def with_command(body: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The body with the words in it that start a talker on this machine; it notes in ``folder`` how far it is."""
    config = body["platform_config"]
    if config["command"][0] != _TALKER:
        return body
    first = [os.path.realpath(sys.executable), "-I", "-S", str(Path(__file__).with_name("talker.py"))]
    words = [*first, *config["command"][1:], str(folder / "talks")]
    return {**body, "platform_config": {**config, "command": words}}


def talker(name: str, pool: str) -> Act:
    """One that runs in that pool."""
    return _create(name, pool, _TALKER)


def _create(name: str, pool: str, program: str) -> Act:
    body = {
        "server_mode": "platform_workload",
        "model_name": "any",
        "pool": pool,
        "platform_config": {"command": [program, "{host}", "{port}"], "readiness_path": "/"},
        "wait_for_ready": False,
        "run_diagnostics": False,
        "timeouts": {"readiness_timeout_s": 25},
    }
    return {"method": "POST", "path": "/api/v1/replicas", "body": body, "makes": name, "kind": KIND, "pool": pool}
