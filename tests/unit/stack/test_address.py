"""Which address a host is known by: looked up once, its own, and one that others can mean."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from app.settings import BadSetting, Settings
from app.stack import address
from app.stack.address import address_towards, with_node_address


def _found(wanted: str) -> str:
    return with_node_address(Settings.load({"HOSTLER_NODE_ADDRESS": wanted})).node_address


@pytest.mark.parametrize(
    "wanted,found",
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.9.8.7", "127.9.8.7"),
        ("localhost", "127.0.0.1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
    ],
)
def test_an_own_address_is_taken_as_it_is(wanted: str, found: str) -> None:
    assert _found(wanted) == found


@pytest.mark.parametrize("wanted", ["203.0.113.9", "no-such-host.invalid"])
def test_what_is_not_this_hosts_is_refused(wanted: str) -> None:
    with pytest.raises(BadSetting, match="HOSTLER_NODE_ADDRESS"):
        _found(wanted)


def test_a_name_that_is_loopback_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's /etc/hosts gives the host's own name so: everybody else would mean himself by it."""
    _resolve(monkeypatch, {"gpu1": ["127.0.1.1"]})
    with pytest.raises(BadSetting, match=r"127\.0\.1\.1 here, which no other host reaches"):
        _found("gpu1")


def test_of_several_addresses_the_first_that_is_this_hosts_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    _resolve(monkeypatch, {"gpu1": ["203.0.113.9", "198.51.100.4", "198.51.100.5"]})
    monkeypatch.setattr(address, "is_own", lambda one: one.startswith("198.51"))
    assert _found("gpu1") == "198.51.100.4"


def test_loopback_is_where_the_database_is_on_this_host() -> None:
    urls = ("postgresql://u:p@/db?host=/run/pg", "postgresql://u@127.0.0.1/db", "redis+socket:///run/redis.sock")
    assert address_towards(urls) == "127.0.0.1"
    assert address_towards(["postgresql://a:1,b:2/db", "redis://no-such-host.invalid:6379/0"]) == "127.0.0.1"


def _resolve(monkeypatch: pytest.MonkeyPatch, names: dict[str, list[str]]) -> None:
    def look_up(host: str, port: Any, **_more: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 0)) for one in names[host]]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
