"""Which servers of others may be forwarded to, and by whom."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from app.domain.endpoints import parse_endpoint
from app.errors import Forbidden
from app.settings import Settings
from app.usecases import external

SETTINGS = Settings(external_allow="api.example.com, 192.0.2.0/24", port=8080, ports=(20000, 29999))


@pytest.mark.parametrize("host", ["api.example.com:443", "192.0.2.7:8000"])
def test_what_is_listed_anybody_may_name(host: str) -> None:
    external.check_allowed(SETTINGS, parse_endpoint(host), admin=False)


@pytest.mark.parametrize("host", ["evil.example:443", "x.api.example.com:443", "192.0.3.1:80", "127.0.0.1:9000"])
def test_what_is_not_listed_only_an_admin_may_name(host: str) -> None:
    with pytest.raises(Forbidden, match="HOSTLER_EXTERNAL_ALLOW"):
        external.check_allowed(SETTINGS, parse_endpoint(host), admin=False)
    external.check_allowed(SETTINGS, parse_endpoint(host), admin=True)


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254:80",
        "[fe80::1]:80",
        "[::ffff:169.254.169.254]:80",
        "0.0.0.0:80",
        "127.0.0.1:8080",
        "127.0.0.2:20001",
        "[::1]:8080",
        "[::ffff:127.0.0.1]:29999",
    ],
)
def test_link_local_addresses_and_our_own_ports_nobody_may(host: str) -> None:
    with pytest.raises(Forbidden, match=r"never allowed|own ports"):
        external.check_allowed(SETTINGS, parse_endpoint(host), admin=True)


def test_a_name_is_judged_by_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(*addresses: str) -> None:
        answers = [(socket.AF_INET, 1, 6, "", (one, 443)) for one in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: answers)

    def where(text: str = "api.example.com:443") -> Any:
        return external.look_up(SETTINGS, parse_endpoint(text))

    found("2001:db8::1", "192.0.2.1", "192.0.2.1")
    assert where() == ("192.0.2.1", "2001:db8::1")
    for forbidden in ("169.254.169.254", "fe80::1%eth0", "0.0.0.0"):
        found("192.0.2.1", forbidden)
        with pytest.raises(Forbidden):
            where()
    found("127.0.0.1")
    assert where() == ("127.0.0.1",)
    with pytest.raises(Forbidden, match="own ports"):
        where("api.example.com:20500")


def test_a_name_that_nobody_knows_is_nowhere() -> None:
    assert external.look_up(SETTINGS, parse_endpoint("no-such-host.invalid:443")) == ()
