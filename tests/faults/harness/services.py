"""What users do with services, drawn by chances of their own: a new act here changes no other step of a seed.

An act is as in ``acts.py``. ``about`` is the name of the service (``s0``), ``{service}`` in the path stands for its id,
``{task}`` for its newest task, ``{member}`` for one of its replicas (``pick`` says which), ``makes`` is the name of the
service that a create makes; ``of`` says that these names are services'.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from tests.faults.harness.acts import MODELS, add_key

Act = dict[str, Any]
#: (seconds since the seed's begin, step, arguments)
Drawn = tuple[float, str, Act]

#: How many seeds have services at all.
SHARE = 0.8
#: A recipe of the harness's own; its file is broken and mended while the stack runs.
OWN_RECIPE = "faults/own"
#: Soon given up: what never gets ready has to come to rest.
RESTART = {"tries": 2, "backoff_s": 0.3, "backoff_max_s": 0.6, "stable_s": 2}
PATH = "/api/v1/services"
PREFIX = "s"
OF = "service"


def services(seed: int, length_s: float) -> list[Drawn]:
    """What is asked of services, and when: ``request`` and ``ask`` steps."""
    rng = random.Random(f"hostler service faults {seed}")
    if rng.random() > SHARE:
        return []
    found: list[Drawn] = []
    for number in range(rng.choice((1, 1, 2))):
        name, at_s = f"{PREFIX}{number}", round(rng.uniform(0, length_s * 0.4), 2)
        # the first in turn, so that a few seeds in a row have made every kind
        kinds = [list(KINDS)[seed % len(KINDS)]] if number == 0 else list(KINDS)
        kind = rng.choices(kinds, [KINDS[one][0] for one in kinds])[0]
        made = _create(rng, name, kind, number)
        found.append((at_s, "request", made))
        for _ in range(rng.randint(1, 4)):
            found += _change(rng, name, at_s, length_s)
        if kind in SPEAKING:
            found += [(_later(rng, at_s, length_s), "ask", _prompt(rng, name, made)) for _ in range(rng.randint(2, 5))]
    return found


def _later(rng: random.Random, at_s: float, length_s: float) -> float:
    return round(min(length_s, at_s + rng.choice((0.05, 0.3, 0.8, 1.5, 2.2)) + rng.random() * 0.4), 3)


def _create(rng: random.Random, name: str, kind: str, number: int) -> Act:
    body = KINDS[kind][1](rng)
    update = {"max_surge": rng.choice((0, 1, 1, 2)), "max_unavailable": rng.choice((0, 0, 1)), "progress_deadline_s": 5}
    if not update["max_surge"] and not update["max_unavailable"]:
        update["max_surge"] = 1
    body = {"recipe_name": "inference/mock", "pool": "local", "restart": RESTART, "update": update, **body}
    if kind in SPEAKING:
        body["model_name"] = MODELS[number % len(MODELS)]
    act: Act = {"method": "POST", "path": PATH, "body": body, "makes": name, "of": OF, "kind": kind}
    if rng.random() < 0.3:
        act["wait_s"] = rng.choice((1, 2, 4))
    add_key(rng, act, 0.7)
    return act


def _change(rng: random.Random, name: str, at_s: float, length_s: float) -> list[Drawn]:
    """One thing that is done to a service, or two that contradict each other in one moment."""
    began_s = _later(rng, at_s, length_s)
    found: list[Drawn] = []
    for what in rng.choices(list(CHANGES), [weight for weight, _ in CHANGES.values()], k=rng.choice((1, 1, 1, 2))):
        for act in CHANGES[what][1](rng, name):
            after_s = float(act.pop("after_s", 0)) + rng.random() * 0.03
            found.append((round(began_s + after_s, 3), "request", act))
    return found


def _scale(rng: random.Random, name: str) -> list[Act]:
    return [_about(rng, name, "POST", f"{PATH}/{{service}}/scale", {"replicas": rng.choice((0, 1, 2, 3, 3, 4))}, 0.4)]


def _update(rng: random.Random, name: str) -> list[Act]:
    knobs = rng.choice(({"seed": rng.randrange(1000)}, {"seed": rng.randrange(1000)}, {"startup_s": 0.4}))
    return [_patch(rng, name, knobs)]


def _bad_update(rng: random.Random, name: str) -> list[Act]:
    """It never gets ready: back to the good one, by itself."""
    return [_patch(rng, name, rng.choice(({"exit_on_start": 3}, {"startup_s": 6})))]


def _cancel(rng: random.Random, name: str) -> list[Act]:
    if rng.random() < 0.2:
        return [_about(rng, name, "DELETE", f"{PATH}/{{service}}", None, 0.3)]
    path = rng.choice((f"{PATH}/{{service}}/status", "/api/v1/service-groups/{service}/status"))
    return [_about(rng, name, "POST", path, {"status": "cancelled"}, 0.4)]


def _pause(rng: random.Random, name: str) -> list[Act]:
    resumed = _about(rng, name, "POST", f"{PATH}/{{service}}/resume", {}, 0.2)
    return [_about(rng, name, "POST", f"{PATH}/{{service}}/pause", {}, 0.2), {**resumed, "after_s": 1.2}]


def _rollback(rng: random.Random, name: str) -> list[Act]:
    return [_about(rng, name, "POST", f"{PATH}/{{service}}/rollback", {}, 0.4)]


def _stop_member(rng: random.Random, name: str) -> list[Act]:
    act = _about(rng, name, "POST", "/api/v1/replicas/{member}/stop", {"grace_s": rng.choice((0, 1))}, 0.3)
    return [{**act, "pick": rng.randrange(1000)}]


def _restart_member(rng: random.Random, name: str) -> list[Act]:
    return [{**_about(rng, name, "POST", "/api/v1/replicas/{member}/restart", {}, 0.3), "pick": rng.randrange(1000)}]


def _cancel_task(rng: random.Random, name: str) -> list[Act]:
    return [_about(rng, name, "POST", "/api/v1/tasks/{task}/cancel", {}, 0.2)]


def _look(rng: random.Random, name: str) -> list[Act]:
    path = rng.choice((f"{PATH}/{{service}}", f"{PATH}/{{service}}/status", PATH, f"{PATH}/targets"))
    return [{"method": "GET", "path": path, "body": None, "about": name, "of": OF}]


#: What is asked of services that were made, and how often.
CHANGES: Mapping[str, tuple[int, Callable[[random.Random, str], list[Act]]]] = {
    "scale": (8, _scale),
    "update": (6, _update),
    "bad-update": (3, _bad_update),
    "cancel": (3, _cancel),
    "pause": (2, _pause),
    "rollback": (2, _rollback),
    "stop-member": (5, _stop_member),
    "restart-member": (2, _restart_member),
    "cancel-task": (2, _cancel_task),
    "look": (3, _look),
}


def _steady(rng: random.Random) -> Act:
    return {"replicas": rng.randint(1, 3), "config": _engine(rng.choice(({}, {}, {"startup_s": 0.4}, {"stop_s": 0.5})))}


def _own(rng: random.Random) -> Act:
    return {"recipe_name": OWN_RECIPE, "replicas": rng.randint(1, 2)}


def _on_mock(rng: random.Random) -> Act:
    options = rng.choice(
        (
            {},
            {"ready_delay_s": 0.5},
            {"queue_s": 0.3, "ready_delay_s": 0.3},
            {"fail_inspect": 2},
            {"stop_delay_s": 1},
            # it cannot be asked for a while, which is no death
            {"unreachable_after_s": 0.5, "unreachable_for_s": 2},
            {"unreachable_after_s": 0.5, "unreachable_for_s": 2},
            {"unreachable_after_s": 0.5, "unreachable_for_s": 2},
        )
    )
    config = {"engine_config": {"backend_options": options}}
    return {"pool": rng.choice(("mock", "mock", "few")), "replicas": rng.randint(1, 4), "config": config}


def _dies(rng: random.Random) -> Act:
    """Each of them, again and again, until it is given up."""
    knobs = rng.choice(({"exit_after_s": 1.5, "exit_code": 7}, {"exit_on_start": 3}))
    return {"replicas": rng.randint(1, 2), "config": _engine(knobs)}


def _gang(rng: random.Random) -> Act:
    """All at once or none: it fits when the others are gone, or at once."""
    return {"replicas": rng.randint(2, 4), "all_or_nothing": True, "config": {"resources": {"gpu": 1}}}


def _tight_gang(rng: random.Random) -> Act:
    """The whole of a pool, or more than it will ever have."""
    return {"pool": "tight", "replicas": rng.choice((2, 2, 3)), "all_or_nothing": True, "config": _engine({})}


#: What services are made of, and how often.
KINDS: Mapping[str, tuple[int, Callable[[random.Random], Act]]] = {
    "steady": (8, _steady),
    "own": (3, _own),
    "on-mock": (5, _on_mock),
    "dies": (2, _dies),
    "gang": (3, _gang),
    "tight-gang": (2, _tight_gang),
}
#: Those whose members say in every answer what they serve and which attempt they are.
SPEAKING = frozenset({"steady", "gang", "tight-gang"})


def _engine(knobs: Mapping[str, Any]) -> Act:
    return {"engine_config": {"mock": dict(knobs)}}


def _patch(rng: random.Random, name: str, knobs: Mapping[str, Any]) -> Act:
    return _about(rng, name, "PATCH", f"{PATH}/{{service}}", {"config": _engine(knobs)}, 0.5)


def _about(rng: random.Random, name: str, method: str, path: str, body: Any, keyed: float) -> Act:
    act: Act = {"method": method, "path": path, "body": body, "about": name, "of": OF}
    add_key(rng, act, keyed)
    return act


def _prompt(rng: random.Random, name: str, made: Act) -> Act:
    return {
        "by": "service",
        "model": made["body"]["model_name"],
        "about": name,
        "of": OF,
        "spelled": "plain",
        "key": "admin",
        "stream": rng.random() < 0.4,
    }


def plain_service(name: str, replicas: int, **options: float) -> Act:
    """A service that gets ready, for a fault that waits for one; ``options`` are its backend's."""
    body = {"recipe_name": "inference/mock", "pool": "mock", "replicas": replicas, "restart": RESTART}
    body |= {"config": {"engine_config": {"backend_options": options}}} if options else {}
    return {"method": "POST", "path": PATH, "body": body, "makes": name, "of": OF, "kind": "steady"}


def plain_gang(name: str, replicas: int) -> Act:
    """The same, all of it at once."""
    act = plain_service(name, replicas)
    return {**act, "body": {**act["body"], "all_or_nothing": True}}


def plain_scale(name: str, replicas: int) -> Act:
    body = {"replicas": replicas}
    return {"method": "POST", "path": f"{PATH}/{{service}}/scale", "body": body, "about": name, "of": OF}


def plain_patch(name: str) -> Act:
    body = {"config": {"engine_config": {"backend_options": {"ready_delay_s": 0.3}}}}
    return {"method": "PATCH", "path": f"{PATH}/{{service}}", "body": body, "about": name, "of": OF}
