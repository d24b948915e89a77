"""The hub from a process of the API, where threads are greenlets: over TLS, and nothing else is held up."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from pathlib import Path

from tests.standins.hub import Hub
from tests.support.certificates import write_certificate

ASK = """
from gevent import monkey
monkey.patch_all()
import json, sys, time
import gevent
from app.errors import HostlerError
from app.hub import asking
from app.settings import Settings

settings = Settings.load({"HF_ENDPOINT": sys.argv[1], "HOME": "/nonexistent"})
asking.PATIENCE_S = float(sys.argv[2])
ticks = 0

def tick():
    global ticks
    while True:
        ticks += 1
        gevent.sleep(0.01)

gevent.spawn(tick)
try:
    question = lambda api: api.model_info("Qwen/Qwen2.5-7B-Instruct", expand=["config"]).id
    said = asking.ask(settings, question, of_one_model=True)
except HostlerError as error:
    said = error.code
print(json.dumps([said, ticks]))
"""


def test_over_tls_while_other_greenlets_go_on(there: Hub, tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path, host="localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    there.socket = context.wrap_socket(there.socket, server_side=True)
    url = f"https://localhost:{there.server_port}"

    def ask(patience_s: float, authority: Path) -> tuple[str, int]:
        environ = {**os.environ, "SSL_CERT_FILE": str(authority), "PYTHONSAFEPATH": "1"}
        command = [sys.executable, "-P", "-c", ASK, url, str(patience_s)]
        told = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=True)
        said, ticks = json.loads(told.stdout)
        return said, ticks

    assert ask(30, certificate)[0] == "Qwen/Qwen2.5-7B-Instruct"
    there.fault = "drip"
    said, ticks = ask(1, certificate)
    assert said == "hub_unavailable"
    # blocked, it would have been one or two
    assert ticks > 20
    there.fault = ""
    other, _ = write_certificate(tmp_path, "other", host="localhost")
    assert ask(30, other)[0] == "hub_unavailable"
