"""Of what has ended nothing is kept elsewhere but its log: no secrets, no folder without a record, no volume, no
network, no socket of a connection that is gone."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.faults.harness.checker.evidence import Evidence, Far
from tests.faults.harness.facts import Finding
from tests.faults.harness.world import replica_of

#: Folders of attempts below the harness's own, by the pools that have them: jobs', and processes' of a far host.
JOBS = ("queue", "login", "shared")
PROCESSES = ("far/attempts",)
#: The folder of what was deleted is removed by a pass every 30 s, which begins anew with each agent.
FORGOTTEN_S = 120.0


def check_leftovers(found: Evidence) -> Iterator[Finding]:
    far = found.far
    if far is None:
        return
    yield from _judge_folders(found)
    for name in far.volumes or ():
        yield Finding("leftovers", "a volume is left of a container that is gone", {"volume": name})
    for name in far.networks or ():
        yield Finding("leftovers", "a network is left that nobody asked for", {"network": name})
    if found.run.converged:
        yield from _judge_seats(found, far)
        yield from _judge_sockets(found, far)


def _judge_folders(found: Evidence) -> Iterator[Finding]:
    open_names = {attempt.name for attempt in found.rows.open_attempts()}
    deleted = {
        request.deletes(): request.answered_at
        for request in found.all_requests
        if request.accepted and request.answered_at is not None
    }
    for place in (*JOBS, *PROCESSES):
        for folder in _attempts(found.run.folder / place):
            told = {"attempt": folder.name, "folder": str(folder)}
            if folder.name not in open_names and (folder / "private").exists():
                yield Finding("leftovers", "secrets are kept of an attempt that is over", told)
            deleted_at = deleted.get(replica_of(folder.name)[0])
            if deleted_at is not None and found.at - deleted_at > FORGOTTEN_S:
                yield Finding("leftovers", "a folder is left of an attempt that was deleted long ago", told)


def _judge_seats(found: Evidence, far: Far) -> Iterator[Finding]:
    """Of jobs that several attempts share, while they run."""
    open_names = {attempt.name for attempt in found.rows.open_attempts()}
    # not by its id, which a killed controller gives again
    living = {job.share for job in far.jobs or () if job.is_shared and not job.is_over}
    for seat in sorted((found.run.folder / "shared" / ".shared").glob("*/seats/*")):
        if seat.name.isdigit() and seat.parents[1].name in living:
            holder = (_read(seat) or {}).get("name")
            if holder is not None and holder not in open_names:
                told = {"attempt": holder, "seat": str(seat.relative_to(found.run.folder))}
                yield Finding("leftovers", "a seat is held by an attempt that is over", told)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _attempts(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name.startswith("hostler-"))


def _judge_sockets(found: Evidence, far: Far) -> Iterator[Finding]:
    """The one that all use is taken over by the next connection; others go with the process that made them."""
    for path in sorted(found.run.stack.haproxy_socket.parent.glob("ssh-*.*")):
        if _is_socket(path) and not any(str(path) in one.words for one in far.connections):
            yield Finding("leftovers", "a socket is left of a connection that is gone", {"socket": path.name})


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False
