"""What the door holds at once, and that it starts wherever its files lie."""

from __future__ import annotations

import resource
import socket

import pytest

from app.gateway import proxy
from app.gateway.config.door import callers_at_once
from app.gateway.files import read_file
from app.settings import Settings
from app.stack.errors import PartFailed
from app.stack.haproxy import haproxy_program
from tests.support.embedded import wait_until
from tests.support.public_door import Door, public_door

FEW = 40


def test_who_finds_the_door_full_waits_and_nobody_inside_is_stuck() -> None:
    with public_door({"HOSTLER_GATEWAY_CONNECTIONS": str(FEW)}) as door:
        most = callers_at_once(FEW)
        held = [door.connect() for _ in range(most)]
        wait_until(lambda: f"CurrConns: {most}" in door.ask("show info"), 5, "a full door")
        late = door.connect()
        late.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        late.settimeout(0.5)
        with pytest.raises(TimeoutError):
            late.recv(1)
        # our own processes ask through a door of their own
        with socket.socket(socket.AF_UNIX) as inside:
            inside.settimeout(5)
            inside.connect(str(door.layout.inside_socket))
            inside.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert inside.recv(64).startswith(b"HTTP/1.1 404 ")
        held.pop().close()
        late.settimeout(5)
        assert late.recv(64).startswith(b"HTTP/1.1 200 ")
        for one in (*held, late):
            one.close()


def test_connections_that_are_not_used_are_given_back() -> None:
    with public_door({"HOSTLER_GATEWAY_CONNECTIONS": str(FEW)}, header_s=1) as door:
        held = [door.connect() for _ in range(callers_at_once(FEW))]
        for one in held[::2]:
            one.sendall(b"GET / HTTP/1.1\r\nX: ")
        # nobody closes them but the door
        assert door.get("/").status == 200
        for one in held:
            one.close()


def test_a_port_has_one_door(door: Door) -> None:
    """Not two that each get some of the callers, as HAProxy does it by itself."""
    with public_door({"HOSTLER_PORT": str(door.port)}, must_listen=False) as other:
        assert other.process.wait(20) != 0
    for _ in range(20):
        assert door.get("/").status == 200


@pytest.mark.parametrize("name", ["o d%d;'#\"$HOME", "ü", "a,b"])
def test_it_starts_wherever_the_state_dir_lies(name: str) -> None:
    with public_door(name=name) as door:
        assert door.layout.run == door.layout.state_dir / "run"
        assert door.get("/").status == 200


def test_as_many_are_held_as_open_files_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, least, most in ((1024, 300, 400), (20_000, 9_000, 10_000), (65_536, 31_000, 32_768)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert least < proxy.connections(Settings.load({})) < most
        assert proxy.connections(Settings.load({}, gateway_connections=100)) == 100
        assert proxy.connections(Settings.load({}, gateway_connections=500_000)) < most


def test_a_configuration_that_haproxy_refuses_never_takes_the_place_of_one_that_works(door: Door) -> None:
    before = read_file(door.places.config)
    with pytest.raises(PartFailed, match="unknown keyword"):
        proxy.write_config(haproxy_program(door.settings), door.places, "global\n    nonsense\n")
    assert read_file(door.places.config) == before
