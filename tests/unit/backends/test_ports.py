"""Whose socket a connection to a port would reach."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from workers.backends import ports
from workers.backends.ports import Listeners, owns_all, read_table
from workers.backends.sockdiag import listening


@pytest.fixture
def sockets() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def listen(stack: ExitStack, host: str, port: int = 0, *, shared: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = stack.enter_context(socket.socket(family))
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    server.bind((host, port))
    server.listen()
    return server


def inode(server: socket.socket) -> str:
    return str(os.fstat(server.fileno()).st_ino)


@pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0", "::", "::ffff:127.0.0.1"])
def test_what_takes_a_connection_to_loopback_is_found(sockets: ExitStack, bound: str) -> None:
    server = listen(sockets, bound)
    assert Listeners().sockets("127.0.0.1", server.getsockname()[1]) == {inode(server)}


def test_version_6_loopback_is_another_address(sockets: ExitStack) -> None:
    server = listen(sockets, "::1")
    assert Listeners().sockets("127.0.0.1", server.getsockname()[1]) == set()
    assert Listeners().sockets("::1", server.getsockname()[1]) == {inode(server)}


def test_the_more_specific_address_wins(sockets: ExitStack) -> None:
    everywhere = listen(sockets, "0.0.0.0", shared=True)
    port = everywhere.getsockname()[1]
    loopback = listen(sockets, "127.0.0.1", port, shared=True)
    assert Listeners().sockets("127.0.0.1", port) == {inode(loopback)}


def test_sharers_of_a_port_are_all_found(sockets: ExitStack) -> None:
    first = listen(sockets, "127.0.0.1", shared=True)
    second = listen(sockets, "127.0.0.1", first.getsockname()[1], shared=True)
    found = Listeners().sockets("127.0.0.1", first.getsockname()[1])
    assert found == {inode(first), inode(second)}
    assert owns_all([os.getpid()], found)
    second_only_elsewhere = found | {"1"}
    assert not owns_all([os.getpid()], second_only_elsewhere)


@pytest.mark.parametrize("table, host", [("tcp", "127.0.0.1"), ("tcp6", "::1")])
def test_the_slow_table_says_what_the_kernel_says(sockets: ExitStack, table: str, host: str) -> None:
    server = listen(sockets, host)
    port = server.getsockname()[1]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    slow = [found for found in read_table(Path("/proc/net") / table) if found[1] == port]
    fast = [found for found in listening(family) if found[1] == port]
    assert slow == fast == [(socket.inet_pton(family, host), port, int(inode(server)))]


def test_without_the_kernels_answer_the_slow_table_serves(sockets: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError

    monkeypatch.setattr(ports, "listening", refuse)
    server = listen(sockets, "127.0.0.1")
    assert Listeners().sockets("127.0.0.1", server.getsockname()[1]) == {inode(server)}


def test_connections_are_not_listeners(sockets: ExitStack) -> None:
    server = listen(sockets, "127.0.0.1")
    client = sockets.enter_context(socket.create_connection(server.getsockname()))
    assert Listeners().sockets("127.0.0.1", client.getsockname()[1]) == set()


def test_processes_that_are_gone_own_nothing() -> None:
    assert not owns_all([2**22 - 1], {"1"})
