"""TLS at the door: what is spoken, and a certificate that is renewed while connections live."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.gateway import certificate as module
from app.gateway.certificate import Unusable, renew, write_certificate
from app.stack.errors import PartFailed
from tests.support.certificates import write_certificate as make
from tests.support.public_door import Door, public_door


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Door]:
    certificate, key = make(tmp_path)
    environ = {"HOSTLER_TLS_CERTIFICATE": str(certificate), "HOSTLER_TLS_KEY": str(key)}
    with public_door(environ) as door:
        yield door


def connect(door: Door, protocols: tuple[str, ...] = ("http/1.1",), **limits: ssl.TLSVersion) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(list(protocols))
    for name, version in limits.items():
        setattr(context, name, version)
    return context.wrap_socket(socket.create_connection(("127.0.0.1", door.port), timeout=10))


def ask(connection: ssl.SSLSocket) -> bytes:
    connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    found = b""
    while not found.endswith(b"ok"):
        more = connection.recv(4096)
        assert more, found
        found += more
    return found


def test_both_protocols_are_spoken_and_those_behind_are_told(secured: Door) -> None:
    with connect(secured) as one, connect(secured, ("h2", "http/1.1")) as two:
        assert ask(one).startswith(b"HTTP/1.1 200 ")
        assert two.selected_alpn_protocol() == "h2"
    assert b"x-forwarded-proto: https\r\n" in secured.behind.seen[0]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_older_tls_is_not_spoken(secured: Door) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(secured, maximum_version=ssl.TLSVersion.TLSv1_1)


def test_a_renewed_certificate_is_served_and_no_connection_notices(secured: Door, tmp_path: Path) -> None:
    settings = secured.settings
    with connect(secured) as before:
        first = before.getpeercert(True)
        ask(before)
        assert not renew(settings, secured.places), "nothing is new"
        make(tmp_path)
        assert renew(settings, secured.places)
        ask(before)
        with connect(secured) as after:
            assert after.getpeercert(True) != first
            ask(after)
    assert secured.places.certificate.stat().st_mode & 0o777 == 0o600


def test_half_a_renewal_changes_nothing(secured: Door, tmp_path: Path) -> None:
    """One file is new, the other is not there yet, or is of another."""
    text = secured.places.certificate.read_text()
    other, _ = make(tmp_path, "other")
    (tmp_path / "own.pem").write_bytes(other.read_bytes())
    with pytest.raises(Unusable, match="belong together"):
        renew(secured.settings, secured.places)
    (tmp_path / "own.pem").unlink()
    with pytest.raises(Unusable, match="cannot be read"):
        renew(secured.settings, secured.places)
    # a HAProxy that is started now begins with the one before
    write_certificate(secured.settings, secured.places)
    assert secured.places.certificate.read_text() == text
    with connect(secured) as connection:
        ask(connection)
    secured.places.certificate.unlink()
    with pytest.raises(PartFailed):
        write_certificate(secured.settings, secured.places)


def test_the_agent_looks_by_itself(secured: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.embedded import wait_until

    monkeypatch.setattr(module, "EVERY_S", 0.05)
    renewer = module.Renewer(secured.settings, secured.places)
    renewer.start()
    text = secured.places.certificate.read_text()
    try:
        make(tmp_path)
        wait_until(lambda: secured.places.certificate.read_text() != text, 5, "the renewed one")
    finally:
        renewer.stop()
        renewer.join(5)
