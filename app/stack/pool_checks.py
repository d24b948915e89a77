"""For ``hostler doctor``: whether this host reaches what its pools name, and how the tunnels stand.

The backends are asked by ``workers.reaching``, in a process of its own that is ended when it takes too long, as the
user and with the agent and the PATH that the workers of the stack have.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import IO, Any

import psutil

from app.db.engine import Database
from app.db.repos import tunnels
from app.errors import Unavailable
from app.settings import Settings
from app.stack.as_workers import as_workers
from app.stack.findings import FAIL, OK, WARN, Finding, one_line
from app.stack.layout import Layout
from app.stack.record import Record, supervisor_of
from app.stack.urls import database_url

#: How long people wait for all pools together; one backend gets less (``workers.reaching``).
LONGEST_S = 25.0
#: A local end that is made anew is no news.
TUNNEL_LATE_S = 10.0
#: Local ends that are told by themselves; of more their number.
_MOST_TUNNELS = 20


def pool_checks(settings: Settings, record: Record | None, longest_s: float = LONGEST_S) -> list[Finding]:
    """One finding per pool that this host serves."""
    if not settings.state_dir.is_dir():
        return []
    told, said = _ask(settings, record, longest_s)
    names = next((one["pools"] for one in told if "pools" in one), None)
    if names is None:
        detail = f"not known: {one_line(said) or f'nothing was told within {longest_s:g} s'}"
        return [Finding("places", FAIL, detail, "python -m workers.reaching")]
    known = {one["pool"]: one for one in told if "pool" in one}
    return [_finding(name, known.get(name), longest_s) for name in names]


def tunnel_check(settings: Settings) -> list[Finding]:
    """How the local ends of all hosts stand, and whether one that this host should have is missing."""
    database = Database(database_url(settings), pool_size=1)
    try:
        with database.read() as connection:
            ends = tunnels.standing(connection)
            missing = tunnels.without_end(connection, settings.node_name)
    except Unavailable as error:
        return [Finding("tunnels", FAIL, f"not known: {error.detail}", "see database")]
    finally:
        database.close()
    log = Layout(settings.state_dir).logs / "tunnels.log"
    found = [_tunnel(end) for end in ends if end.state != "up"]
    if len(found) > _MOST_TUNNELS:
        rest = f"{len(found) - _MOST_TUNNELS} more are not up"
        found = [*found[:_MOST_TUNNELS], Finding("tunnels", FAIL, rest, f"tail {log}")]
    if missing:
        some = f"replica {missing[0]} {f'and {len(missing) - 1} more have' if missing[1:] else 'has'} no local end here"
        found.append(Finding("tunnels", WARN, some, f"hostler status; tail {log}"))
    if found:
        return found
    return [Finding("tunnels", OK, f"all are up: {len(ends)}" if ends else "nothing is reached through one")]


def _finding(name: str, told: Mapping[str, Any] | None, longest_s: float) -> Finding:
    look = f"hostler pool get {name}"
    if told is None:
        return Finding(f"pool {name}", FAIL, f"its backend did not answer within {longest_s:g} s", look)
    detail = f"{told['backend']}: {one_line(told['detail'])}"
    if told["healthy"]:
        return Finding(f"pool {name}", OK, detail)
    # nothing is launched there
    result = WARN if told["state"] == "draining" else FAIL
    return Finding(f"pool {name}", result, detail, told["fix"] or look)


def _tunnel(end: Any) -> Finding:
    detail = (
        f"replica {end.replica_id} of pool {end.pool} is not reached from host {end.node}: its tunnel is {end.state}"
        f" for {end.seconds:.0f} s{f': {one_line(end.message)}' if end.message else ''}"
    )
    fix = f"hostler replica explain {end.replica_id}"
    return Finding("tunnels", FAIL if end.seconds >= TUNNEL_LATE_S else WARN, detail, fix)


def _ask(settings: Settings, record: Record | None, longest_s: float) -> tuple[list[dict[str, Any]], str]:
    """What ``workers.reaching`` told in time, and what it said beside that."""
    until = time.monotonic() + longest_s
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "workers.reaching"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **as_workers(settings, _environment_of(record)),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        heard = {process.stdout: b"", process.stderr: b""}
        try:
            _hear(heard, until)
        finally:
            process.kill()
    said = heard[process.stderr].decode("utf-8", "replace").strip()
    # the last line may be cut
    lines = heard[process.stdout].split(b"\n")[:-1]
    return [json.loads(line) for line in lines], said.rpartition("\n")[2]


def _hear(heard: dict[IO[bytes], bytes], until: float) -> None:
    """Everything that is said until all have ended, or it is ``until``."""
    with selectors.DefaultSelector() as selector:
        for stream in heard:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map() and (left_s := until - time.monotonic()) > 0:
            for key, _ in selector.select(left_s):
                said: Any = key.fileobj
                data = os.read(key.fd, 65536)
                heard[said] += data
                if not data:
                    selector.unregister(said)


def _environment_of(record: Record | None) -> Mapping[str, str]:
    """The workers' own: their SSH agent and PATH may be others than those of whoever types ``doctor``."""
    supervisor = supervisor_of(record)
    if supervisor is None:
        return os.environ
    try:
        return supervisor.environ()
    except psutil.Error:
        return os.environ
