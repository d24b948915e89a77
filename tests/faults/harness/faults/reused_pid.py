"""An engine dies while nobody looks, and a stranger gets its pid: only the start time tells them apart.

As root the kernel is told which pid to give next. Else the records of the dead engine are changed to name the
stranger's pid beside the old start time, which to whoever reads them is the same.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import psycopg

from tests.faults.harness import world
from tests.faults.harness.faults.base import Hit
from tests.faults.harness.stack import FaultyStack

_NEXT = Path("/proc/sys/kernel/ns_last_pid")
#: Others take pids too.
_TRIES = 200
_GONE_S = 2.0
#: The checker looks for it within this; then it ends by itself.
_STRANGER = ("sleep", "120")


class ReusePid:
    weight = 8

    def __init__(self) -> None:
        #: they are our children: one that is not collected stays a zombie
        self._strangers: list[subprocess.Popen[bytes]] = []

    def draw(self, rng: random.Random) -> Mapping[str, Any]:
        return {"pick": rng.randrange(1000)}

    def inject(self, stack: FaultyStack, arguments: Mapping[str, Any]) -> Hit:
        self._strangers = [one for one in self._strangers if one.poll() is None]
        frozen = stack.send(stack.pids("agent"), signal.SIGSTOP)
        try:
            engines = [one for one in world.processes(stack.facts.state_dir) if one.leads]
            if not engines:
                return {"reused": False}
            engine = engines[arguments["pick"] % len(engines)]
            stack.send([engine.pid], signal.SIGKILL)
            if not _await_gone(engine.pid):
                return {"reused": False, "killed": engine.pid}
            stranger = self._take_pid(engine.pid) or self._take_place(stack, engine.name)
        finally:
            stack.send(frozen, signal.SIGCONT)
        return {"reused": True, "attempt": engine.name, "stranger": stranger}

    def heal(self, stack: FaultyStack, arguments: Mapping[str, Any], hit: Hit) -> None:
        """The engine stays dead, and the stranger what it is."""

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(_STRANGER, start_new_session=True, stdin=subprocess.DEVNULL)

    def _take_pid(self, pid: int) -> Mapping[str, Any] | None:
        """A stranger under that very pid; None when we may not choose it or others were faster."""
        if not os.access(_NEXT, os.W_OK):
            return None
        for _ in range(_TRIES):
            try:
                _NEXT.write_text(str(pid - 1))
            except OSError:
                return None
            made = self._start()
            if made.pid == pid:
                self._strangers.append(made)
                return _told(made)
            made.kill()
            made.wait()
        return None

    def _take_place(self, stack: FaultyStack, name: str) -> Mapping[str, Any]:
        """A stranger under another pid, which the records of the dead engine name from now on."""
        made = self._start()
        self._strangers.append(made)
        record = stack.layout.attempts / name / "engine.json"
        try:
            known = json.loads(record.read_bytes())
            draft = record.with_name("engine.json.stranger")
            draft.write_text(json.dumps({**known, "pid": made.pid}))
            owner = record.stat()
            os.chown(draft, owner.st_uid, owner.st_gid)
            draft.chmod(0o600)
            draft.rename(record)
            with stack.sql() as connection:
                connection.execute(
                    "UPDATE attempts SET backend_ref = jsonb_set(backend_ref, '{ref,pid}', to_jsonb(%s::int))"
                    " WHERE name = %s AND released_at IS NULL AND backend_ref->'ref' ? 'pid'",
                    (made.pid, name),
                )
        except (OSError, ValueError, psycopg.Error) as error:
            return {**_told(made), "why": str(error)}
        return _told(made)


def _await_gone(pid: int) -> bool:
    deadline = time.monotonic() + _GONE_S
    while psutil.pid_exists(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def _told(made: subprocess.Popen[bytes]) -> Mapping[str, Any]:
    return {"pid": made.pid, "start": world.identity(made.pid)}
