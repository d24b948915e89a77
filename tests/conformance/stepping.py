"""Stopping a launcher at a chosen line: a fork of this process that is killed or frozen there, for real."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import workers.backends
import workers.transports

_FOLDERS = tuple(f"{Path(package.__file__).parent}/" for package in (workers.backends, workers.transports))
Place = tuple[str, int]


def lines_of(act: Callable[[], object]) -> list[Place]:
    """Every line of the backends and transports that ``act`` runs in a fork, in order of first arrival.

    In a fork, because there it is done again: what this process keeps between two launches no other may use.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, json.dumps(_lines_of(act)).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        found = json.loads(file.read())
    os.waitpid(pid, 0)
    return [(file, line) for file, line in found]


def _lines_of(act: Callable[[], object]) -> list[Place]:
    places: dict[Place, None] = {}

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(_FOLDERS):
            return None
        if event == "line":
            places.setdefault((frame.f_code.co_filename, frame.f_lineno))
        return trace

    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(None)
    return list(places)


def signalled_at(place: Place, act: Callable[[], object], number: signal.Signals) -> int:
    """Fork; the child runs ``act`` and sends itself ``number`` just before ``place``. Returns its pid.

    The child ends with 0, or with 1 when ``act`` raised; reap it with ``os.waitpid``.
    """
    pid = os.fork()
    if pid:
        return pid

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(_FOLDERS):
            return None
        if event == "line" and (frame.f_code.co_filename, frame.f_lineno) == place:
            sys.settrace(None)
            os.kill(os.getpid(), number)
            return None
        return trace

    status = 1
    try:
        sys.settrace(trace)
        act()
        status = 0
    except BaseException:  # noqa: BLE001 - the child must end here whatever happened
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)
