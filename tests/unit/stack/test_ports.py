from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from app.settings import Settings
from app.stack.errors import PortInUse, StackError, TooOpen
from app.stack.ports import check_address, check_free, is_loopback, url_of
from tests.support.certificates import write_certificate


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_loopback_needs_no_more(host: str) -> None:
    assert is_loopback(host)
    check_address(Settings.load({}, host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org"])
def test_beyond_loopback_needs_a_long_key_or_tls(host: str, tmp_path: Path) -> None:
    for key in ("", "k" * 31):
        with pytest.raises(TooOpen, match="HOSTLER_API_KEY"):
            check_address(Settings.load({}, host=host, api_key=key))
    check_address(Settings.load({}, host=host, api_key="k" * 32))
    certificate, key_file = write_certificate(tmp_path)
    check_address(Settings.load({}, host=host, tls_certificate=str(certificate), tls_key=str(key_file)))


def test_a_taken_port_is_told_with_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortInUse, match=f"pid {os.getpid()}"):
            check_free("127.0.0.1", port)


def test_a_port_that_was_just_used_is_free() -> None:
    """Connections of a server that ended linger for a minute; they are no obstacle."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()
        client.close()
    check_free("127.0.0.1", port)


def test_an_address_of_another_host_is_told() -> None:
    with pytest.raises(StackError, match="--host"):
        check_free("192.0.2.1", 8080)


@pytest.mark.parametrize(
    "host, url",
    [("127.0.0.1", "http://127.0.0.1:1"), ("0.0.0.0", "http://127.0.0.1:1"), ("::", "http://[::1]:1")],
)
def test_the_url_is_one_to_connect_to(host: str, url: str) -> None:
    assert url_of(Settings.load({}, host=host, port=1)) == url
    assert url_of(Settings.load({}, host=host, port=1, tls_certificate="c", tls_key="k")) == url.replace(
        "http", "https"
    )
