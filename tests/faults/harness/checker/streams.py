"""No event missed, doubled or out of order by a stream that was open all along, whatever died behind it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from tests.faults.harness.checker.evidence import Evidence
from tests.faults.harness.facts import Finding
from tests.faults.harness.recorders import streams

#: A stream that had to come back may need this long to catch up.
CATCH_UP_S = 15.0
_SHOWN = 10


def check_streams(found: Evidence) -> Iterator[Finding]:
    """Compare what each stream was told with the table, in the order of ``(xid, id)``."""
    deadline = time.monotonic() + CATCH_UP_S
    while (wrong := list(_look(found))) and time.monotonic() < deadline:
        time.sleep(0.2)
    yield from wrong
    yield from _judge_order(found)


def _look(found: Evidence) -> Iterator[Finding]:
    settled = [event for event in found.rows.events if event.xid < found.rows.settled]
    ordered = sorted(settled, key=lambda event: (event.xid, event.id))
    after = found.run.after_event
    # a stream may have gone on since the rows were read
    newest = max((event.id for event in found.rows.events), default=after)
    known = {_place(event) for event in found.rows.events}
    told: dict[str, list[dict[str, Any]]] = {streams.EVERYTHING: []}
    for line in streams.read(found.run.folder):
        told.setdefault(line["stream"], []).append(line)
    for name, lines in told.items():
        if name == streams.EVERYTHING:
            wanted = [_place(event) for event in ordered if event.id > after]
        else:
            replica_id = lines[0]["replica_id"]
            wanted = [_place(event) for event in ordered if event.replica_id == replica_id and event.id > after]
            if any(line["op"] == "closed" for line in lines):
                wanted = _up_to_last(wanted, lines)
        heard = [line["id"] for line in lines if line["op"] == "event" and after < _number(line["id"]) <= newest]
        yield from _compare(name, wanted, heard, known)


def _compare(name: str, wanted: Sequence[str], heard: Sequence[str], known: set[str]) -> Iterator[Finding]:
    times = Counter(heard)
    missed = [place for place in wanted if place not in times]
    doubled = [place for place, count in times.items() if count > 1]
    made_up = [place for place in times if place not in known]
    for text, places in (
        ("a stream missed events", missed),
        ("a stream told events twice", doubled),
        ("a stream told events that are not in the table", made_up),
    ):
        if places:
            yield Finding("streams", text, {"stream": name, "count": len(places), "events": places[:_SHOWN]})
    kept = [place for place in dict.fromkeys(heard) if place in set(wanted)]
    if not missed and kept != list(wanted):
        first = next((a, b) for a, b in zip(kept, wanted, strict=False) if a != b)
        told = {"stream": name, "heard": first[0], "due": first[1]}
        yield Finding("streams", "a stream told events out of order", told)


def _judge_order(found: Evidence) -> Iterator[Finding]:
    """What happened to one replica is shown in the order in which it happened."""
    for replica_id, events in found.rows.events_by_replica().items():
        steps = [event for event in events if event.kind == "transition"]
        for one, other in zip(steps, steps[1:], strict=False):
            if (other.xid, other.id) < (one.xid, one.id):
                told = {"replica": replica_id, "first": _place(one), "then": _place(other)}
                yield Finding("streams", "a later step is shown before an earlier one", told)


def _up_to_last(places: list[str], lines: list[dict[str, Any]]) -> list[str]:
    heard = {line.get("id") for line in lines}
    while places and places[-1] not in heard:
        places = places[:-1]
    return places


def _place(event: Any) -> str:
    return f"{event.xid}-{event.id}"


def _number(place: str) -> int:
    return int(place.partition("-")[2])
