"""MLServer, a real server of the Open Inference Protocol, with a model that gives back what it gets."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from tests.support import plain_http
from tests.support.bound import bound
from tests.support.embedded import wait_until
from tests.support.peers import PEERS, venv
from tests.support.ports import free_port

START_S = 60


@dataclass
class V2Server:
    """A running one. ``grpc`` and ``http`` are its endpoints, as one registers them."""

    process: subprocess.Popen[bytes]
    grpc: str
    http: str

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def v2_server(folder: Path, model: str = "echo") -> Iterator[V2Server]:
    """MLServer with a model of that name, which echoes. Raises NotInstalled where it cannot be had."""
    program = venv("mlserver") / "bin" / "mlserver"
    place = folder / model
    place.mkdir(parents=True)
    shutil.copy(PEERS / "mlserver" / "echo.py", place)
    (place / "model-settings.json").write_text(json.dumps({"name": model, "implementation": "echo.Echo"}))
    ports = {name: free_port() for name in ("http_port", "grpc_port", "metrics_port")}
    # no processes of its own beside it: what is killed is all of it
    settings = {"host": "127.0.0.1", "parallel_workers": 0, "metrics_endpoint": None, **ports}
    (folder / "settings.json").write_text(json.dumps(settings))
    with open(folder / "server.log", "wb") as log:
        process = subprocess.Popen(
            [*bound("KILL"), str(program), "start", str(folder)],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    server = V2Server(process, f"127.0.0.1:{ports['grpc_port']}", f"127.0.0.1:{ports['http_port']}")
    try:
        wait_until(lambda: _ready(server, model, folder), START_S, "a ready MLServer")
        yield server
    finally:
        server.kill()


def _ready(server: V2Server, model: str, folder: Path) -> bool:
    assert server.process.poll() is None, (folder / "server.log").read_text()[-3000:]
    try:
        answer = plain_http.get(f"http://{server.http}/v2/models/{model}/ready", timeout=5, trust_env=False)
    except httpx2.TransportError:
        return False
    return answer.status_code == 200
