"""The scribe: whole lines only, and a bound."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.gateway.access_log import Scribe, open_pipe
from tests.support.embedded import wait_until


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[int]:
    descriptor = open_pipe(tmp_path / "pipe")
    yield descriptor
    os.close(descriptor)


def test_lines_come_whole_and_foreign_ones_not_at_all(tmp_path: Path, pipe: int) -> None:
    log = tmp_path / "log"
    scribe = Scribe(tmp_path / "pipe", log)
    scribe.start()
    try:
        os.write(pipe, b'{"a": 1}\nServer control/web is DOWN\n{"b"')
        wait_until(lambda: log.exists() and log.read_bytes() == b'{"a": 1}\n', 5, "the first line")
        os.write(pipe, b": 2}\n")
        wait_until(lambda: log.read_bytes() == b'{"a": 1}\n{"b": 2}\n', 5, "the second, whole")
    finally:
        scribe.stop()
    assert log.stat().st_mode & 0o777 == 0o600


def test_the_next_scribe_takes_what_came_meanwhile(tmp_path: Path, pipe: int) -> None:
    os.write(pipe, b'{"early": 1}\n')
    scribe = Scribe(tmp_path / "pipe", tmp_path / "log")
    scribe.start()
    wait_until(lambda: (tmp_path / "log").exists(), 5, "the line")
    os.write(pipe, b'{"late": 1}\n')
    scribe.stop()
    assert (tmp_path / "log").read_text() == '{"early": 1}\n{"late": 1}\n', "what is in the pipe is written at the end"


def test_a_full_disk_ends_nobody(tmp_path: Path, pipe: int) -> None:
    log = tmp_path / "log"
    # a folder stands in for a file that cannot be written
    log.mkdir()
    scribe = Scribe(tmp_path / "pipe", log)
    scribe.start()
    try:
        os.write(pipe, b'{"lost": 1}\n')
        wait_until(lambda: scribe._told, 5, "the refusal")
        log.rmdir()
        os.write(pipe, b'{"kept": 1}\n')
        wait_until(lambda: log.exists() and log.read_text() == '{"kept": 1}\n', 5, "the line after it")
    finally:
        scribe.stop()


def test_two_files_bound_it(tmp_path: Path, pipe: int) -> None:
    log = tmp_path / "log"
    scribe = Scribe(tmp_path / "pipe", log, most_bytes=1000)
    scribe.start()
    line = b'{"x": "' + b"y" * 90 + b'"}\n'
    try:
        for number in range(60):
            os.write(pipe, line)
            if number % 10 == 9:
                wait_until(lambda: not _waiting(pipe), 5, "the reader")
    finally:
        scribe.stop()
    kept = [path for path in tmp_path.iterdir() if path.name.startswith("log")]
    assert {path.name for path in kept} <= {"log", "log.1"}
    assert 0 < sum(path.stat().st_size for path in kept) < 60 * len(line)


def _waiting(descriptor: int) -> int:
    import array
    import fcntl
    import termios

    found = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, found)
    return found[0]
