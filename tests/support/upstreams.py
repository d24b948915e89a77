"""Somebody else's server with OpenAI's API: the mock engine behind TLS, its certificate signed by nobody known."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.engines.registry import engine
from app.settings import Settings
from app.stack.haproxy import haproxy_program
from tests.support.certificates import write_certificate
from tests.support.engines import HOST, Running, running
from tests.support.ports import free_port
from workers.probes.http import look
from workers.probes.wire import ProbeTarget

#: What it demands of its callers.
KEY = "key-of-the-external-server-0123456789"
NAME = "localhost"
_CONFIG = """\
global
    nbthread 1
    fd-hard-limit 4000
    log stdout format raw local0
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend tls
    bind {host}:{port} ssl crt {certificate}
    log global
    log-format "%HM %HU host=%[var(txn.host)] keys=%[var(txn.keys)] ours=%[var(txn.ours)]"
    http-request set-var(txn.host) req.hdr(host)
    http-request set-var(txn.keys) req.fhdr_cnt(authorization)
    http-request set-var(txn.ours) req.fhdr_cnt(x-hostler-replica)
    default_backend engine
backend engine
    server engine {host}:{engine}
"""


@dataclass
class Upstream:
    """``engine`` is what works behind the TLS; ``process`` what callers reach. The log tells what they asked."""

    folder: Path
    port: int
    authority: Path
    engine: Running
    process: subprocess.Popen[bytes]

    @property
    def base_url(self) -> str:
        return f"https://{NAME}:{self.port}/v1"

    @property
    def request(self) -> dict[str, Any]:
        """What an EngineRequest for it holds."""
        return {"environment": {"UPSTREAM_API_KEY": KEY}, "addresses": (HOST,), "ca_file": str(self.authority)}

    @property
    def log(self) -> list[str]:
        return (self.folder / "tls.log").read_text().splitlines()


@contextmanager
def running_upstream(folder: Path, **knobs: Any) -> Iterator[Upstream]:
    """It, until the end of the block. ``knobs`` are the mock engine's."""
    certificate, key = write_certificate(folder, host=NAME)
    both = folder / "both.pem"
    both.touch(mode=0o600)
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    with running(engine("mock"), folder / "engine", request={"engine_key": KEY}, mock=knobs) as it:
        it.wait_ready()
        port = free_port()
        config = folder / "tls.cfg"
        config.write_text(_CONFIG.format(host=HOST, port=port, certificate=both, engine=it.port))
        with open(folder / "tls.log", "wb") as log:
            process = subprocess.Popen([haproxy_program(Settings()), "-db", "-f", config], stdout=log, stderr=log)
        try:
            _await_listener(process, port)
            yield Upstream(folder, port, certificate, it, process)
        finally:
            process.kill()
            process.wait()


def _await_listener(process: subprocess.Popen[bytes], port: int) -> None:
    # it speaks TLS, so what it answers is no HTTP: that it listens is enough
    found = look(ProbeTarget(HOST, port, "/"), lambda: process.poll() is None, 0.2)
    assert found is not None, f"it ended with {process.returncode}"
