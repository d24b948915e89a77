"""No attempt is launched twice: by what its engine counted, and by what was seen of it all along."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from tests.faults.harness import world
from tests.faults.harness.checker.evidence import Evidence
from tests.faults.harness.facts import Finding
from tests.faults.harness.recorders import sightings


def check_launches(found: Evidence) -> Iterator[Finding]:
    names = {attempt.name for attempt in found.rows.attempts}
    for name, times in found.starts.items():
        if name in names and times > 1 and not _lost_by_cluster(found, name):
            yield Finding("launches", "an engine was started more than once", {"attempt": name, "starts": times})
    engines: dict[tuple[str, str], set[tuple[int, int]]] = defaultdict(set)
    for line in sightings.read(found.run.folder):
        if line["at"] < found.run.begun_at:
            continue
        if line["op"] == "seen" and line["leads"]:
            # a cluster may begin an attempt anew, once it ended the run before
            engines[line["attempt"], line.get("run", "")].add((line["pid"], line["start"]))
        elif line["op"] == "outlived":
            told = {"attempt": line["attempt"], "pid": line["pid"], "released": line["released"]}
            yield Finding("launches", "a process ran on after its attempt was released", told)
        elif line["op"] == "doubled":
            told = {"attempt": line["attempt"], "pids": line["pids"]}
            yield Finding("launches", "two engines of one attempt ran at once", told)
        elif line["op"] == "shared_gpu":
            told = {"gpu": line["gpu"], "attempts": line["attempts"]}
            yield Finding("launches", "two attempts had the same GPU at once", told)
    for (name, _), seen in engines.items():
        if len(seen) > 1 and not _lost_by_cluster(found, name):
            told = {"attempt": name, "engines": sorted(seen)}
            yield Finding("launches", "an attempt was seen with more than one engine", told)


def _lost_by_cluster(found: Evidence, name: str) -> bool:
    """A controller that was killed forgets what it did last: it ends a job that it does not know to run, and runs that
    same job once more, one after the other."""
    return found.controller_was_killed and len(world.told_jobs(found.run.folder, name)) == 1
