"""A stack that speaks TLS, with a certificate nobody else vouches for, as most are on a cluster's inside."""

from __future__ import annotations

import json
import os
import socket
import ssl
from pathlib import Path

import httpx2
import pytest

from app.settings import BadSetting, Settings
from app.stack.ports import check_address
from tests.support import plain_http
from tests.support.certificates import NAME, write_certificate
from tests.support.stacks import stack


@pytest.mark.timeout(180)
def test_up_down_doctor_and_the_command_line_speak_tls(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    # as they are typed: beside where one stands
    given = {"HOSTLER_TLS_CERTIFICATE": certificate.name, "HOSTLER_TLS_KEY": key.name}
    with stack(tmp_path / "state") as made:
        made.run_kwargs["cwd"] = tmp_path
        said = made.up(**given)
        assert said.startswith(f"https://127.0.0.1:{made.port}\n")
        created = made.must("replica", "create", "--server-mode", "replica_mock", "--model-name", "m", "--wait")
        assert "ready" in created
        assert created.split()[0] in made.must("replica", "list")
        assert {"check": "api", "result": "ok"}.items() <= json.loads(made.must("doctor", "-o", "json"))[1].items()
        assert "up already" in made.hostler("up", "-d").stderr

        # others trust it by its name, and nobody else's in its place
        trust = ssl.create_default_context(cafile=str(certificate))
        with (
            socket.create_connection(("127.0.0.1", made.port)) as plain,
            trust.wrap_socket(plain, server_hostname=NAME) as served,
        ):
            assert served.version() in ("TLSv1.2", "TLSv1.3")
        another, _ = write_certificate(tmp_path, "another")
        record = json.loads(made.layout.record.read_text())
        made.layout.record.write_text(json.dumps(record | {"certificate": str(another)}))
        assert made.hostler("replica", "list").returncode == 8
        made.layout.record.write_text(json.dumps(record))

        # who speaks no TLS gets no answer, and leaves no traceback
        with pytest.raises(httpx2.TransportError):
            plain_http.get(f"http://127.0.0.1:{made.port}/health", trust_env=False)
        assert made.must("health")
        assert "Traceback" not in (made.layout.logs / "web.log").read_text()
        assert "stopping 1 " in made.hostler("down").stderr


@pytest.mark.parametrize(
    "certificate,key,said",
    [
        ("own.pem", "", "both"),
        ("", "own.key", "both"),
        ("none.pem", "own.key", "HOSTLER_TLS_CERTIFICATE"),
        ("own.pem", "none.key", "HOSTLER_TLS_KEY"),
        ("own.key", "own.pem", "no certificate and its key"),
        ("own.pem", "other.key", "no certificate and its key"),
        ("own.pem", "closed.key", "passphrase"),
    ],
)
def test_a_certificate_that_cannot_be_served_is_told_before_anything_starts(
    tmp_path: Path, certificate: str, key: str, said: str
) -> None:
    write_certificate(tmp_path)
    write_certificate(tmp_path, "other")
    write_certificate(tmp_path, "closed", b"a passphrase")
    given = {
        name: str(tmp_path / file) if file else ""
        for name, file in (("tls_certificate", certificate), ("tls_key", key))
    }
    with pytest.raises(BadSetting, match=said):
        check_address(Settings.load({}, **given))


def test_relative_paths_hold_wherever_a_process_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.load({"HOSTLER_TLS_CERTIFICATE": "a.pem", "HOSTLER_TLS_KEY": "b.key"})
    assert (settings.tls_certificate, settings.tls_key) == (os.path.abspath("a.pem"), os.path.abspath("b.key"))
