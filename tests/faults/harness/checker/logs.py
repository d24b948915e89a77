"""What an engine says is in its log once and in order, for who reads it and for who follows it, wherever it runs.

Each number that is missing, or told twice, begins another row of numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.faults.harness.checker.evidence import Evidence
from tests.faults.harness.facts import Finding
from tests.faults.harness.speech import Speech

#: Who keeps what a container said: with it goes what it had not written yet.
_KEEPERS = frozenset({"kill-conmon"})


def check_logs(found: Evidence) -> Iterator[Finding]:
    lost = any(line["op"] == "fault" and line["name"] in _KEEPERS for line in found.journal)
    for line in found.journal:
        if line["op"] in ("log", "followed"):
            speech = Speech([(token, first, last) for token, first, last in line["heard"]])
            told = {name: line[name] for name in ("op", "replica", "heard", "said", "words", "status") if name in line}
            yield from _judge_rows(speech, told)
            said = line["said"]
            if said and not lost and not speech.reaches((said[0], said[1])):
                yield Finding("logs", "a log lacks what was said long before", told)
    for request in found.requests:
        if request.path.endswith("/logs") and request.status == 200 and isinstance(request.answer, str):
            speech = Speech.of(request.answer.splitlines())
            told = {"request": request.request_id, "heard": speech.heard}
            # one who wants the last lines begins somewhere
            yield from _judge_rows(speech, told, from_begin="tail=" not in request.query)


def _judge_rows(speech: Speech, told: dict[str, Any], *, from_begin: bool = True) -> Iterator[Finding]:
    """One row of each start of the engine, from its first word on."""
    rows = speech.heard if from_begin else speech.heard[1:]
    if len({token for token, *_ in speech.heard}) < len(speech.heard) or any(first for _, first, _ in rows):
        yield Finding("logs", "lines of a log are missing, doubled or out of order", told)
