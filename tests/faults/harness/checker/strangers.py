"""Who is not ours is left alone: a process that got the pid of a dead engine lives on."""

from __future__ import annotations

from collections.abc import Iterator

from tests.faults.harness import world
from tests.faults.harness.checker.evidence import Evidence
from tests.faults.harness.facts import Finding


def check_strangers(found: Evidence) -> Iterator[Finding]:
    for line in found.journal:
        stranger = (line.get("hit") or {}).get("stranger") if line["op"] == "fault" else None
        if stranger and world.identity(stranger["pid"]) != stranger["start"]:
            told = {"pid": stranger["pid"], "took the pid of": line["hit"].get("attempt")}
            yield Finding("strangers", "a process that is not ours was killed", told)
