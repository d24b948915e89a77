"""Noticing that a caller has gone, also in a process that holds more files than select() can name."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
import threading
from collections.abc import Iterator

import pytest

from app.api import waiting
from app.api.inference.caller import Caller, CallerLeft

#: select() knows the first 1,024.
BEYOND = 1500


@pytest.fixture
def high() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < BEYOND + 100:
        pytest.skip(f"this host lets a process open {hard} files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, BEYOND + 100), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def pair(high: None) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The server's end, at a high number, and the caller's."""
    low, other = socket.socketpair()
    mine = socket.socket(fileno=fcntl.fcntl(low.fileno(), fcntl.F_DUPFD, BEYOND))
    low.close()
    assert mine.fileno() >= BEYOND
    with mine, other:
        yield mine, other


def test_who_waits_has_not_left(pair: tuple[socket.socket, socket.socket]) -> None:
    mine, other = pair
    assert not waiting.closed(mine)
    other.sendall(b"GET / HTTP/1.1\r\n")
    assert not waiting.closed(mine), "it sent its next request"


def test_who_closed_has_left(pair: tuple[socket.socket, socket.socket]) -> None:
    mine, other = pair
    other.close()
    assert waiting.closed(mine)


def test_a_wait_ends_when_the_caller_leaves(pair: tuple[socket.socket, socket.socket]) -> None:
    mine, other = pair
    wire, silent = socket.socketpair()
    with wire, silent:
        threading.Timer(0.05, other.close).start()
        with pytest.raises(CallerLeft):
            Caller(mine).wait(wire, 20)


def test_a_wait_ends_with_the_answer(pair: tuple[socket.socket, socket.socket]) -> None:
    mine, other = pair
    wire, answering = socket.socketpair()
    with wire, answering:
        caller = Caller(mine)
        assert caller.wait(wire, 0.05) == (False, False)
        assert caller.wait(wire, 5, to_write=True) == (False, True)
        other.sendall(b"next request")
        answering.sendall(b"x")
        assert caller.wait(wire, 5) == (True, False)
        assert os.read(wire.fileno(), 1) == b"x"


def test_what_is_given_up_waits_for_nothing() -> None:
    wire, silent = socket.socketpair()
    with wire, silent:
        caller = Caller()
        caller.leave()
        with pytest.raises(CallerLeft):
            caller.wait(wire, 20)
