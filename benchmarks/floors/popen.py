"""A bare parent: ``Popen`` of the same commands, polled every 5 ms until each answers."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

POLL_S = 0.005


@dataclass(frozen=True)
class Program:
    """One engine to start, and where it answers when it is ready."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    files: Mapping[str, str]
    port: int
    path: str


def until_ready(programs: Sequence[Program], limit_s: float = 120) -> float:
    """Seconds from the first Popen until the last answers 2xx. All are killed afterwards."""
    with tempfile.TemporaryDirectory(prefix="hb.floor.") as folder:
        prepared = [_prepare(program, Path(folder) / str(number)) for number, program in enumerate(programs)]
        started = time.perf_counter()
        children = [_start(argv, env) for argv, env in prepared]
        try:
            waiting = list(programs)
            while waiting:
                waiting = [program for program in waiting if not _answers(program)]
                if time.perf_counter() - started > limit_s:
                    raise TimeoutError(f"{len(waiting)} of {len(programs)} did not answer within {limit_s} s")
                if waiting:
                    time.sleep(POLL_S)
            return time.perf_counter() - started
        finally:
            for child in children:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait(10)


def until_seen_dead(program: Program, limit_s: float = 60) -> float:
    """Seconds from SIGKILL until the parent's ``wait`` returns, of a program that was ready."""
    with tempfile.TemporaryDirectory(prefix="hb.floor.") as folder:
        child = _start(*_prepare(program, Path(folder) / "0"))
        try:
            end = time.perf_counter() + limit_s
            while not _answers(program):
                if time.perf_counter() > end:
                    raise TimeoutError(f"it did not answer within {limit_s} s")
                time.sleep(POLL_S)
        finally:
            started = time.perf_counter()
            os.killpg(child.pid, signal.SIGKILL)
            child.wait(10)
        return time.perf_counter() - started


def _prepare(program: Program, folder: Path) -> tuple[list[str], dict[str, str]]:
    folder.mkdir(0o700)
    for name, text in program.files.items():
        (folder / name).write_text(text)
    fill = {"{folder}": str(folder)}
    argv = [_filled(word, fill) for word in program.argv]
    env = {name: _filled(value, fill) for name, value in program.env.items()}
    return argv, {"PATH": os.environ["PATH"], "HOME": str(folder), **env}


def _filled(text: str, values: Mapping[str, str]) -> str:
    for mark, value in values.items():
        text = text.replace(mark, value)
    return text


def _start(argv: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _answers(program: Program) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", program.port, timeout=1)
    try:
        connection.request("GET", program.path)
        return 200 <= connection.getresponse().status < 300
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
