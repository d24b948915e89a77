"""A crew whose processes run the code of this version or of the one before, and an API of either to ask."""

from __future__ import annotations

import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.stack.layout import Layout
from app.usecases import keys
from tests.support.crew import HEARD, ROOT, Crew
from tests.support.embedded import wait_until

NEW, OLD = "new", "old"
#: A process on a real port, ready in a moment.
MOCK = {"server_mode": "replica_mock", "model_name": "m", "pool": "faults", "run_diagnostics": False}


@dataclass
class Fleet:
    """``crew`` started with no roles, and the folder of the old version's code."""

    crew: Crew
    baseline: Path
    key: str

    def start(self, version: str, *roles: str) -> None:
        """Start processes of a version and wait until they work."""
        for role in roles:
            self.crew.start(f"{role}@{version}", ROOT if version == NEW else self.baseline)
        for role in roles:
            if role in HEARD:
                self.crew.await_heartbeat(f"{role}@{version}")
            else:
                wait_until(self._answers, 30, f"the API of the {version} version:\n{self.crew.logs()}")

    def kill(self, version: str, *roles: str) -> None:
        for role in roles:
            self.crew.kill(f"{role}@{version}")

    def call(self, method: str, path: str, body: Any = None, expect: int | tuple[int, ...] = 200) -> Any:
        headers = {"X-API-Key": self.key}
        answer = self.crew.ask_web(method, path, json=body, headers=headers)
        wanted = expect if isinstance(expect, tuple) else (expect,)
        assert answer.status_code in wanted, f"{method} {path}: {answer.status_code} {answer.text}\n{self.crew.logs()}"
        return answer.json() if "json" in answer.headers.get("content-type", "") else answer.text

    def create(self, **changes: Any) -> str:
        made = self.call("POST", "/api/v1/replicas", {**MOCK, "wait_for_ready": False, **changes}, 202)
        return str(made["replica_id"])

    def ask(self, replica_id: str, verb: str, **body: Any) -> str:
        """Ask for a stop, restart, health or diagnose; the task's id."""
        return str(self.call("POST", f"/api/v1/replicas/{replica_id}/{verb}", body, 202)["task_id"])

    def done(self, task_id: str) -> dict[str, Any]:
        """The task once it ended, as the API tells it."""
        self.crew.await_task(task_id)
        found: dict[str, Any] = self.call("GET", f"/api/v1/tasks/{task_id}")
        return found

    def _answers(self) -> bool:
        # by hand: a worker of a killed API may take the connection and end, and httpx2 leaves that socket open
        with socket.socket(socket.AF_UNIX) as wire:
            wire.settimeout(10)
            try:
                wire.connect(str(Layout(self.crew.settings.state_dir).web_socket))
                wire.sendall(b"GET /health HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
                return wire.recv(64).startswith(b"HTTP/1.1 200 ")
            except OSError:
                return False


def make_fleet(crew: Crew, baseline: Path) -> Fleet:
    key = f"fleet-{secrets.token_hex(16)}"
    keys.ensure_admin_key(crew.settings, key)
    return Fleet(crew, baseline, key)
