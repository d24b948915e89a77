"""What is asked when all has come to rest: of the door that each replica that is ready answers, and that a key that was
taken away lets nobody in a second later; of the logs, what was said."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from tests.faults.harness import door
from tests.faults.harness.acts import MODELS
from tests.faults.harness.asks import FOREIGN, PLAIN
from tests.faults.harness.following import Follow
from tests.faults.harness.foreign import Foreign
from tests.faults.harness.journal import Journal
from tests.faults.harness.speech import Speech, said
from tests.faults.harness.stack import FaultyStack

#: Within this the door must let in who may, and lead to who is ready.
OPENS_S = 8.0
#: Within this it must keep out whose key was revoked.
CLOSES_S = 1.0
_LOOK_S = 0.1
#: Not those whose end is near: they would be gone by the time they are asked.
_READY = """
SELECT id, model_name FROM replicas WHERE state = 'ready' AND engine = 'mock' AND backend <> 'mock'
    AND desired_state = 'running' AND spec->'job'->>'job_timeout_s' IS NULL ORDER BY id
"""
#: Services with such a replica.
_SERVING = f"""
SELECT DISTINCT m.service_id, ready.model_name FROM ({_READY}) AS ready
JOIN service_members m ON m.replica_id = ready.id ORDER BY 1, 2
"""
#: Replicas of commands that run, with the name of their attempt.
_RUNNING = """
SELECT r.id, a.name FROM replicas r JOIN attempts a ON a.replica_id = r.id AND a.number = r.attempt
WHERE r.state = 'ready' AND r.engine = 'command' AND r.desired_state = 'running' ORDER BY r.id
"""
KEYS = "/api/v1/keys"
LIST = "/v1/models"
ROUTE = f"/route?model={FOREIGN}"


def ask_at_rest(stack: FaultyStack, journal: Journal, send: Callable[..., tuple[int, Any]], foreign: Foreign) -> None:
    """All of it, in the journal (``door`` with ``last``, ``left``, ``revoked``)."""
    ready = _ready(stack)
    for replica, model in ready:
        for by in ("replica", "model"):
            _ask_until_answered(stack, journal, _plain(by, model), replica)
    for service, model in _services(stack):
        _ask_until_answered(stack, journal, _plain("service", model), service)
    for model in set(MODELS) - {model for _, model in ready}:
        # nobody serves it, and nobody may answer for it
        door.ask(stack.url, journal, _plain("model", model), None, stack.facts.api_key)
    _ask_until_answered(stack, journal, _plain("registered", FOREIGN), "")
    foreign.leave()
    _forgotten(stack, journal)
    _revoke(stack, journal, send)


def read_at_rest(
    stack: FaultyStack, journal: Journal, send: Callable[..., tuple[int, Any]], follows: Sequence[Follow]
) -> None:
    """What who talks has said by now, by who follows and by who reads (``log`` in the journal)."""
    for replica, attempt in _pairs(stack, _RUNNING):
        expected = said(stack.folder, attempt)
        if expected is None:
            continue
        deadline = time.monotonic() + OPENS_S
        for one in follows:
            if one.replica == replica:
                one.expect(expected, deadline)
        while True:
            over = time.monotonic() > deadline
            status, text = send("GET", f"/api/v1/replicas/{replica}/logs")
            speech = Speech.of(text.splitlines()) if status == 200 else Speech()
            if over or speech.reaches(expected):
                break
            time.sleep(_LOOK_S)
        journal.write("log", replica=replica, attempt=attempt, status=status, heard=speech.heard, said=expected)


def _forgotten(stack: FaultyStack, journal: Journal) -> None:
    """Who has left is not found, and a moment later not asked any more."""
    deadline = time.monotonic() + OPENS_S
    key = stack.facts.api_key
    while (found := door.look(stack.url, key, ROUTE)) != 404 and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
    while (asked := _ask_foreign(stack, journal)) == 200 and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
    journal.write("left", found=found, asked=asked)


def _ask_foreign(stack: FaultyStack, journal: Journal) -> int:
    line = door.ask(stack.url, journal, _plain("registered", FOREIGN), None, stack.facts.api_key)
    return int(line["status"])


def _plain(by: str, model: str) -> dict[str, Any]:
    return {"by": by, "model": model, "spelled": PLAIN, "key": "admin", "stream": False}


def _ready(stack: FaultyStack) -> list[tuple[str, str]]:
    return _pairs(stack, _READY)


def _services(stack: FaultyStack) -> list[tuple[str, str]]:
    return _pairs(stack, _SERVING)


def _pairs(stack: FaultyStack, query: str) -> list[tuple[str, str]]:
    try:
        with stack.sql() as connection:
            return [(str(row[0]), str(row[1])) for row in connection.execute(query)]
    except psycopg.Error:
        return []


def _ask_until_answered(stack: FaultyStack, journal: Journal, act: dict[str, Any], named: str) -> None:
    deadline = time.monotonic() + OPENS_S
    while True:
        over = time.monotonic() > deadline
        line = door.ask(stack.url, journal, act, named, stack.facts.api_key, last=over, about=named)
        still = dict(_services(stack) if act["by"] == "service" else _ready(stack))
        if over or line["status"] == 200 or (named and named not in still):
            return
        time.sleep(_LOOK_S)


def _revoke(stack: FaultyStack, journal: Journal, send: Callable[..., tuple[int, Any]]) -> None:
    secret = secrets.token_urlsafe(24)
    status, made = send("POST", KEYS, {"name": "to be revoked", "role": "infer", "key": secret})
    if status != 201:
        return
    began = time.monotonic()
    while (seen := door.look(stack.url, secret, LIST)) != 200 and time.monotonic() < began + OPENS_S:
        time.sleep(_LOOK_S)
    status, _ = send("DELETE", f"{KEYS}/{made['id']}")
    if status != 204:
        return
    time.sleep(CLOSES_S)
    after = door.look(stack.url, secret, LIST)
    journal.write("revoked", key=made["id"], before=seen, after=after)
