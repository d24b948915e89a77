"""What users do, drawn by chance: each act is a request, told by names that the driver turns into ids.

``{"method", "path", "body", "key", "wait_s", "about", "makes"}``: ``{id}`` and ``{task}`` in the path stand for the
replica called ``about`` and its newest task; ``makes`` is the name of the replica that a create makes; ``again_s``
sends the very same request (same Idempotency-Key) a second time so much later.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

Act = dict[str, Any]

#: Served by the stock interpreter of the host: starts in a moment, answers GET / with 200.
_SERVE = ["/usr/bin/env", "python3", "-I", "-m", "http.server", "{port}", "--bind", "{host}", "--directory", "{folder}"]


def create(rng: random.Random, name: str) -> Act:
    """Any engine on any backend; most are meant to serve, some to fail."""
    kind = rng.choices(list(_BODIES), [weight for weight, _ in _BODIES.values()])[0]
    body = {"wait_for_ready": False, "run_diagnostics": rng.random() < 0.2, **_BODIES[kind][1](rng)}
    if body["server_mode"] == "replica_mock" and body["pool"] in REAL_POOLS:
        # different ones, so that an answer of the wrong one is known
        body["model_name"] = MODELS[int(name.removeprefix("r")) % len(MODELS)]
    if rng.random() < 0.3:
        body["job"] = {**body.get("job", {}), "job_priority": f"p{rng.randrange(4)}"}
    act: Act = {"method": "POST", "path": "/api/v1/replicas", "body": body, "makes": name, "kind": kind}
    if rng.random() < 0.35:
        body["wait_for_ready"] = True
        act["wait_s"] = rng.choice((1, 2, 4))
    add_key(rng, act, 0.7)
    return act


def stop(rng: random.Random, name: str) -> Act:
    body: dict[str, Any] = {"grace_s": rng.choice((0, 1, 2))}
    if rng.random() < 0.3:
        body = {"force": True}
    return _about(rng, name, "POST", "/api/v1/replicas/{id}/stop", body, 0.4)


def restart(rng: random.Random, name: str) -> Act:
    return _about(rng, name, "POST", "/api/v1/replicas/{id}/restart", {}, 0.4)


def health(rng: random.Random, name: str) -> Act:
    body = {"timeout_s": rng.choice((1, 2, 3)), "poll_interval_s": 0.5}
    act = _about(rng, name, "POST", "/api/v1/replicas/{id}/health", body, 0.3)
    if rng.random() < 0.5:
        act["wait_s"] = 2
    return act


def diagnose(rng: random.Random, name: str) -> Act:
    return _about(rng, name, "POST", "/api/v1/replicas/{id}/diagnose", {}, 0.2)


def cancel(rng: random.Random, name: str) -> Act:
    return _about(rng, name, "POST", "/api/v1/tasks/{task}/cancel", {}, 0.2)


def delete(rng: random.Random, name: str) -> Act:
    return _about(rng, name, "DELETE", "/api/v1/replicas/{id}", None, 0.2)


def look(rng: random.Random, name: str) -> Act:
    path = rng.choice(("/api/v1/replicas/{id}", "/api/v1/replicas/{id}/explain", "/api/v1/replicas", "/health"))
    return {"method": "GET", "path": path, "body": None, "about": name}


#: What mock engines serve.
MODELS = ("m0", "m1", "m2")
#: Pools in which something runs.
REAL_POOLS = ("local", "tight")
#: Creates of mock engines, which say in every answer what they serve and which attempt they are.
SPEAKING = frozenset({"mock-engine", "tight", "gpus", "stubborn", "dies", "too-late", "short-lived"})
#: Creates whose engines end only when their grace is over, which a restart cannot shorten: 30 s.
PATIENT = frozenset({"stubborn"})

#: What is asked of replicas that were made, and how often.
ACTS: Mapping[str, tuple[int, Callable[[random.Random, str], Act]]] = {
    "stop": (8, stop),
    "restart": (6, restart),
    "health": (4, health),
    "cancel": (4, cancel),
    "diagnose": (1, diagnose),
    "delete": (2, delete),
    "look": (3, look),
}


def _mock_engine(rng: random.Random) -> Act:
    knobs = rng.choice(({}, {}, {"startup_s": 0.4}, {"startup_answers_503": True, "startup_s": 1}, {"stop_s": 0.5}))
    return _mock({**knobs, "log_lines": rng.choice((0, 50))})


def _stubborn(rng: random.Random) -> Act:
    # killed when a stop's grace is over; a restart waits for it, which must not take as long as everything may
    return _mock({"stop_s": 6})


def _in_tight_pool(rng: random.Random) -> Act:
    return {**_mock({}), "pool": "tight", "timeouts": rng.choice(({}, {"queue_timeout_s": 2}))}


def _with_gpus(rng: random.Random) -> Act:
    return {**_mock({}), "resources": {"gpu": rng.choice((1, 2))}}


def _dies(rng: random.Random) -> Act:
    knobs = rng.choice(({"exit_on_start": 3}, {"exit_after_s": 1.5, "exit_code": 7}, {"health_fails_after_s": 1}))
    # a launch that was held up may never see it healthy
    return {**_mock(knobs), "timeouts": {"readiness_timeout_s": 5}}


def _too_late(rng: random.Random) -> Act:
    return {**_mock({"startup_s": 60}), "timeouts": {"readiness_timeout_s": 2}}


def _short_lived(rng: random.Random) -> Act:
    return {**_mock({}), "job": {"job_timeout_s": 3}}


def _llama(rng: random.Random) -> Act:
    return {"server_mode": "replica", "model_name": "tiny", "pool": "local", "replica_config": {"threads": 1}}


def _command(rng: random.Random) -> Act:
    argv = rng.choice((_SERVE, _SERVE, _SERVE, ["/no/such/program"], ["/bin/false"]))
    return {
        "server_mode": "platform_workload",
        "model_name": "any",
        "pool": "local",
        "platform_config": {"command": argv, "readiness_path": "/"},
    }


def _mock_backend(rng: random.Random) -> Act:
    options = rng.choice(
        (
            {},
            {"ready_delay_s": 0.5},
            {"queue_s": 0.5, "ready_delay_s": 0.3},
            {"launch_delay_s": 0.7},
            {"fail_launch": "always"},
            {"fail_launch": 1, "fail_retryable": True},
            {"fail_inspect": 2},
            {"fail_stop": 2},
            {"stop_delay_s": 1},
            {"exit_after_s": 1, "exit_code": 3},
            {"unreachable_after_s": 0.5, "unreachable_for_s": 1},
        )
    )
    return {
        "server_mode": "replica_mock",
        "model_name": "m",
        "pool": rng.choice(("mock", "mock", "few")),
        "replica_config": {"backend_options": options},
    }


#: What is created, and how often.
_BODIES: Mapping[str, tuple[int, Callable[[random.Random], Act]]] = {
    "mock-engine": (10, _mock_engine),
    "tight": (6, _in_tight_pool),
    "gpus": (2, _with_gpus),
    "stubborn": (2, _stubborn),
    "dies": (3, _dies),
    "too-late": (1, _too_late),
    "short-lived": (1, _short_lived),
    "llama": (4, _llama),
    "command": (4, _command),
    "mock-backend": (10, _mock_backend),
}


def _mock(knobs: Mapping[str, Any]) -> Act:
    return {"server_mode": "replica_mock", "model_name": "m", "pool": "local", "replica_config": {"mock": dict(knobs)}}


def _about(rng: random.Random, name: str, method: str, path: str, body: Any, keyed: float) -> Act:
    act: Act = {"method": method, "path": path, "body": body, "about": name}
    add_key(rng, act, keyed)
    return act


def add_key(rng: random.Random, act: Act, chance: float) -> None:
    if rng.random() >= chance:
        return
    # the driver puts its own number before it: the same seed may be run twice on one stack
    act["key"] = f"{rng.getrandbits(48):012x}"
    if rng.random() < 0.5:
        act["again_s"] = round(rng.choice((0.0, 0.05, 0.5, 1.5)), 2)


def plain_create(name: str, **knobs: Any) -> Act:
    """A mock engine that serves, for a fault that waits for one."""
    body = {"wait_for_ready": False, "run_diagnostics": False, **_mock(knobs)}
    return {"method": "POST", "path": "/api/v1/replicas", "body": body, "makes": name, "kind": "mock-engine"}


def plain_stop(name: str, grace_s: int) -> Act:
    path = "/api/v1/replicas/{id}/stop"
    return {"method": "POST", "path": path, "body": {"grace_s": grace_s}, "about": name}
