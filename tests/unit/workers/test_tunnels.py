"""What a tunnel takes for an address, and who may listen on its local end."""

from __future__ import annotations

import socket

import pytest

from app.usecases.reach import Address
from app.usecases.tunnels import Far
from workers.tunnels.held_port import HeldPort, PortTaken
from workers.tunnels.line import is_host


@pytest.mark.parametrize("host", ["node1", "gpu-1.cluster.example", "10.0.0.7", "fd00::7", "::1", "n"])
def test_names_and_addresses_are_hosts(host: str) -> None:
    assert is_host(host)


@pytest.mark.parametrize(
    "host", ["", "-oProxyCommand=x", "a b", "/run/x.sock", "[::1]", "x:22", "node1\n", "a;b", "%h", "node1.", "*"]
)
def test_nothing_else_is(host: str) -> None:
    assert not is_host(host)


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert (str(Far("fd00::7", 80)), Address("fd00::7", 80).url) == ("[fd00::7]:80", "http://[fd00::7]:80")


def test_a_held_port_is_nobodys_until_it_is_offered() -> None:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
        with pytest.raises(PortTaken):
            HeldPort(port)
    held = HeldPort(port)
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", port))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    with held.offered():
        taken = socket.create_server(("127.0.0.1", port))
    with taken, pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", port))
    # whoever took it is gone, and it is held again
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", port))
    held.close()
    socket.create_server(("127.0.0.1", port)).close()
