"""Agents that die or freeze at a chosen line: ``python -m tests.integration.gateway.mortal_agent`` forks them.

A case, one JSON line, is ``{"at": [file, line], "signal": number}``; without ``at`` the fork goes through one turn and
answers with the lines that it came by. Each fork takes the gateway's lock, makes one turn as an agent that starts does,
and ends. Settings come from the environment, slots and door from the first line.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Any

from app.gateway.keeping import Keeper
from app.gateway.lock import AgentLock
from app.gateway.writing import Files
from app.settings import Settings
from app.usecases import gateways
from app.usecases.context import Context
from tests.support.haproxies import Front

ROOT = Path(__file__).resolve().parents[3]
#: Where lines are counted: all that a turn does in our own words.
FILES = (
    "app/gateway/keeping.py",
    "app/gateway/haproxy.py",
    "app/gateway/writing.py",
    "app/gateway/files.py",
    "app/usecases/gateways.py",
    "app/usecases/tables.py",
    "app/db/repos/gateways.py",
)


def main() -> None:
    settings = Settings.load()
    setup = json.loads(sys.stdin.readline())
    for line in sys.stdin:
        case = json.loads(line)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            _run(settings, setup, case, write)
        os.close(write)
        if case.get("signal") == signal.SIGSTOP:
            sys.stdout.write(json.dumps({"pid": pid}) + "\n")
        else:
            with os.fdopen(read) as answers:
                told = answers.read()
            _, status = os.waitpid(pid, 0)
            sys.stdout.write(json.dumps({"status": status, "told": told}) + "\n")
        sys.stdout.flush()


def _run(settings: Settings, setup: dict[str, int], case: dict[str, Any], answer: int) -> None:
    code = 1
    try:
        front = Front(settings, setup["slots"], setup["port"])
        lock = AgentLock(front.places.folder / "agent.lock")
        lock.acquire(Event())
        ctx = Context.open(settings)
        gateways.heartbeat(ctx, version="t", haproxy_up=True)
        files = Files(front.places, front.render, front.place)
        keeper = Keeper(ctx, front.places, front.haproxy, files, front.place, front.slot_names, rest_s=0.0)
        seen: dict[tuple[str, int], None] = {}
        sys.settrace(_tracer(case, seen))
        keeper.turn()
        sys.settrace(None)
        if not case.get("at"):
            os.write(answer, json.dumps(list(seen)).encode())
        code = 0
    finally:
        os._exit(code)


def _tracer(case: dict[str, Any], seen: dict[tuple[str, int], None]) -> Any:
    at = tuple(case["at"]) if case.get("at") else None
    names = {str(ROOT / name): name for name in FILES}

    def local(frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "line":
            place = (names[frame.f_code.co_filename], frame.f_lineno)
            if place == at:
                sys.settrace(None)
                os.kill(os.getpid(), case["signal"])
                return None
            seen[place] = None
        return local

    return lambda frame, _event, _argument: local if frame.f_code.co_filename in names else None


if __name__ == "__main__":
    main()
