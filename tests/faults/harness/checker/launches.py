"""No attempt is launched twice: by what its engine counted, and by what was seen of it all along."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from tests.faults.harness.checker.evidence import Evidence
from tests.faults.harness.facts import Finding
from tests.faults.harness.recorders import sightings


def check_launches(found: Evidence) -> Iterator[Finding]:
    names = {attempt.name for attempt in found.rows.attempts}
    for name, times in found.starts.items():
        if name in names and times > 1:
            yield Finding("launches", "an engine was started more than once", {"attempt": name, "starts": times})
    engines: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for line in sightings.read(found.run.folder):
        if line["at"] < found.run.begun_at:
            continue
        if line["op"] == "seen" and line["leads"]:
            engines[line["attempt"]].add((line["pid"], line["start"]))
        elif line["op"] == "outlived":
            told = {"attempt": line["attempt"], "pid": line["pid"], "released": line["released"]}
            yield Finding("launches", "a process ran on after its attempt was released", told)
    for name, seen in engines.items():
        if len(seen) > 1:
            told = {"attempt": name, "engines": sorted(seen)}
            yield Finding("launches", "an attempt was seen with more than one engine", told)
