"""Requests at a service all the time, and whether it ever had fewer ready or more live replicas than it may."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import httpx2

from tests.support import plain_http
from tests.support.stacks import Stack

CALLERS = 6
#: A request takes about so long: 8 tokens at 80 a second. What is stopped has always some in flight.
CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}
_LIVE = ("pending", "scheduling", "preparing", "starting", "waiting_for_ready", "ready", "unhealthy", "unreachable")


@dataclass
class Load:
    """What came of the requests."""

    wrong: list[str] = field(default_factory=list)
    answered: Counter[str] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        return sum(self.answered.values())


@contextmanager
def under_load(up: Stack, service: str, model: str) -> Iterator[Load]:
    """Callers that ask one request after the other: by service, by model, and streams."""
    load, over = Load(), threading.Event()

    def run(number: int) -> None:
        headers = {"X-API-Key": up.key} | ({"X-Hostler-Service": service} if number % 2 else {})
        body = {**CHAT, "model": model, "stream": number % 3 == 0}
        with plain_http.Client(headers=headers, timeout=30, trust_env=False) as client:
            while not over.is_set():
                try:
                    answer = client.post(f"{up.url}/v1/chat/completions", json=body)
                except httpx2.TransportError as error:
                    load.wrong.append(f"{number}: {error!r}")
                    continue
                whole = answer.status_code == 200 and (not body["stream"] or "[DONE]" in answer.text)
                if not whole:
                    load.wrong.append(f"{number}: {answer.status_code} {answer.text[-400:]}")
                load.answered[answer.headers.get("X-Hostler-Replica", "")] += whole

    threads = [threading.Thread(target=run, args=(number,)) for number in range(CALLERS)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        over.set()
        for thread in threads:
            thread.join(60)


def history(up: Stack, service: str) -> list[list[dict[str, Any]]]:
    """The steps of all its replicas, in order, those of one transaction together."""
    rows = up.call("GET", f"/api/v1/replicas?label=service_id={service}&limit=200")["replicas"]
    found = []
    for row in rows:
        page = up.call("GET", f"/api/v1/replicas/{row['replica_id']}/events?limit=200")
        assert page["next_cursor"] is None
        found += [one for one in page["events"] if one["to_state"] is not None]
    found.sort(key=lambda one: tuple(int(part) for part in one["id"].split("-")))
    return [list(group) for _, group in groupby(found, key=lambda one: one["id"].partition("-")[0])]


def assert_within(up: Stack, service: str, *, least: int, most: int, from_id: str = "0-0") -> list[tuple[int, int]]:
    """After each transaction behind the event ``from_id`` so many replicas were ready and live; returns (ready, live)
    of each. A restart would count as gone: these tests make none."""
    states: dict[str, str] = {}
    seen = []
    for group in history(up, service):
        for one in group:
            states[one["replica_id"]] = one["to_state"]
        ready = sum(state == "ready" for state in states.values())
        live = sum(state in _LIVE for state in states.values())
        if _order(group[-1]["id"]) > _order(from_id):
            seen.append((ready, live))
            assert ready >= least, (seen, group)
            assert live <= most, (seen, group)
    return seen


def last_event(up: Stack, service: str) -> str:
    """The newest step of its replicas."""
    return str(history(up, service)[-1][-1]["id"])


def _order(event_id: str) -> tuple[int, ...]:
    return tuple(int(part) for part in event_id.split("-"))
