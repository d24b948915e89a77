"""What a name means is looked up once, all of it counts, and a resolver that hangs holds up nobody for long."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from app.errors import EndpointRefused, InvalidConfig
from app.settings import Settings
from app.usecases import endpoints
from app.usecases.endpoints import pin


@pytest.fixture
def resolving(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Makes the resolver give these addresses for any name; what it was asked is in the list."""

    def act(*addresses: str) -> list[str]:
        asked: list[str] = []

        def getaddrinfo(host: str, *_: Any, **__: Any) -> list[Any]:
            asked.append(host)
            if not addresses:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            found = [host] if host[0].isdigit() else addresses
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 0)) for one in found]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        return asked

    return act


def context(allow: str = "127.0.0.0/8,::1,localhost", **more: str) -> Any:
    settings = Settings.load({"HOSTLER_REGISTER_ALLOW": allow, "HOME": "/nowhere", **more})
    return SimpleNamespace(settings=settings)


def test_a_name_is_pinned_to_what_it_means_now(resolving: Callable[..., list[str]]) -> None:
    asked = resolving("::1", "127.0.0.1", "::ffff:127.0.0.1")
    found = pin(context(), "Localhost.:50051")
    assert (found.endpoint.host, found.addresses, found.local) == ("localhost", ("127.0.0.1", "::1"), True)
    assert asked == ["localhost"]
    # an address needs nobody's word
    assert pin(context(), "[::1]:50051").addresses == ("::1",)
    assert asked == ["localhost"]


@pytest.mark.parametrize(
    "addresses",
    [("127.0.0.1", "10.0.0.1"), ("10.0.0.1",), ("127.0.0.1", "169.254.169.254"), ("0.0.0.0",), ("fe80::1%3",)],
)
def test_all_that_a_name_means_must_be_allowed(resolving: Callable[..., list[str]], addresses: tuple[str, ...]) -> None:
    resolving(*addresses)
    with pytest.raises(EndpointRefused):
        pin(context(), "rebinding.example:80")


def test_a_listed_name_may_mean_anything_but_what_is_never_allowed(resolving: Callable[..., list[str]]) -> None:
    resolving("192.0.2.7")
    found = pin(context("gpu.example"), "gpu.example:80")
    assert (found.addresses, found.local) == (("192.0.2.7",), False)
    resolving("169.254.169.254")
    with pytest.raises(EndpointRefused):
        pin(context("gpu.example"), "gpu.example:80")


def test_the_database_and_the_broker_are_never_anybodys_server(resolving: Callable[..., list[str]]) -> None:
    ctx = context(
        "192.0.2.0/24",
        HOSTLER_DATABASE_URL="postgresql://u:p@db.example:5433/hostler",
        HOSTLER_BROKER_URL="redis://192.0.2.9/0",
    )
    resolving("192.0.2.8")
    for endpoint in ("192.0.2.8:5433", "192.0.2.9:6379"):
        with pytest.raises(EndpointRefused):
            pin(ctx, endpoint)
    assert pin(ctx, "192.0.2.8:5432").addresses == ("192.0.2.8",)


def test_a_name_that_means_nothing_is_told(resolving: Callable[..., list[str]]) -> None:
    resolving()
    with pytest.raises(InvalidConfig, match="cannot be resolved"):
        pin(context(), "nowhere.example:80")


def test_a_resolver_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()
    monkeypatch.setattr(endpoints, "RESOLVE_S", 0.05)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer.wait(10) and [])
    try:
        with pytest.raises(InvalidConfig, match="no answer"):
            pin(context(), "slow.example:80")
    finally:
        answer.set()
