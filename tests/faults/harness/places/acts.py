"""What users ask of other places, drawn by chances of their own: ``request`` steps, as in ``acts.py``.

``pool`` names the pool that an act needs: where this machine lacks a part of it, nothing is asked.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from tests.faults.harness.acts import ACTS, MODELS, Act, add_key, plain_create
from tests.faults.harness.places.pools import PLACES
from tests.faults.harness.services import plain_scale, plain_service

Drawn = tuple[float, str, Act]
#: (seconds since the seed's begin, name, kind)
Born = tuple[float, str, str]

#: What the engines do there, and how often; all of them say who they are.
_KNOBS: Mapping[str, tuple[int, Mapping[str, Any]]] = {
    "serves": (8, {}),
    "speaks": (4, {"log_lines": 50}),
    "slow": (2, {"startup_s": 0.6}),
    "ends-slowly": (2, {"stop_s": 0.5}),
    "dies": (2, {"exit_after_s": 1.5, "exit_code": 7}),
    "never-starts": (1, {"exit_on_start": 3}),
}
_LOGS = ("/api/v1/replicas/{id}/logs", "/api/v1/replicas/{id}/logs?tail=20", "/api/v1/replicas/{id}/explain")


def draw(rng: random.Random, first_pool: str, length_s: float) -> tuple[list[Drawn], list[Born]]:
    """What is asked, and which replicas are made by it."""
    found: list[Drawn] = []
    born: list[Born] = []
    for number in range(rng.randint(4, 6)):
        at_s = round(rng.uniform(0, length_s * 0.5), 2)
        pool = first_pool if number < 2 else rng.choice([*PLACES, "local"])
        made = _create(rng, f"r{number}", pool)
        born.append((at_s, made["makes"], made["kind"]))
        found.append((at_s, "request", made))
    for _ in range(rng.randint(4, 7)):
        began_s, name, _ = rng.choice(born)
        at_s = round(min(length_s, began_s + rng.choice((0.05, 0.5, 1.5, 2.5)) + rng.random() * 0.5), 3)
        act = rng.choices(list(ACTS), [weight for weight, _ in ACTS.values()])[0]
        found.append((at_s, "request", ACTS[act][1](rng, name)))
        if rng.random() < 0.5:
            look = {"method": "GET", "path": rng.choice(_LOGS), "body": None, "about": name}
            found.append((at_s, "request", look))
    if rng.random() < 0.5:
        found += _service(rng, length_s)
    return found, born


def serving(name: str, pool: str, **knobs: Any) -> Act:
    """An engine in that pool, for a fault that waits for one."""
    act = plain_create(name, **knobs)
    return {**act, "pool": pool, "body": {**act["body"], "pool": pool}}


def _create(rng: random.Random, name: str, pool: str) -> Act:
    knobs = rng.choices(list(_KNOBS), [weight for weight, _ in _KNOBS.values()])[0]
    body = {
        "server_mode": "replica_mock",
        "model_name": MODELS[int(name.removeprefix("r")) % len(MODELS)],
        "pool": pool,
        "wait_for_ready": False,
        "run_diagnostics": rng.random() < 0.2,
        "replica_config": {"mock": dict(_KNOBS[knobs][1])},
        # what a fault held up is given time to be seen healthy
        "timeouts": {"readiness_timeout_s": 25},
    }
    act: Act = {"method": "POST", "path": "/api/v1/replicas", "body": body, "makes": name, "kind": "mock-engine"}
    add_key(rng, act, 0.7)
    return act if pool == "local" else {**act, "pool": pool}


def _service(rng: random.Random, length_s: float) -> list[Drawn]:
    """Whose replicas are replaced when something takes them away."""
    pool = rng.choice(list(PLACES))
    made = plain_service("s0", rng.randint(1, 2))
    made = {**made, "pool": pool, "body": {**made["body"], "pool": pool}}
    at_s = round(rng.uniform(0, length_s * 0.3), 2)
    found: list[Drawn] = [(at_s, "request", made)]
    if rng.random() < 0.5:
        later_s = round(rng.uniform(at_s + 0.5, length_s), 2)
        found.append((later_s, "request", plain_scale("s0", rng.choice((0, 1, 3)))))
    return found
