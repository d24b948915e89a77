"""A whole stack for tests: started by ``hostler up`` like a user would, and surely gone afterwards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil

from app.stack.control import _end_rest
from app.stack.layout import Layout, remove_run_dir
from app.stack.places import remove_place
from app.stack.processes import control_plane, end, engines, is_zombie
from tests.support import plain_http
from tests.support.embedded import wait_until
from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
UP_S = 90
#: A real process on a real port, ready in a moment.
MOCK = {"server_mode": "replica_mock", "model_name": "m", "pool": "local", "run_diagnostics": False}


class Stack:
    """One state dir and port, and the commands that work on it."""

    def __init__(self, state_dir: Path, python: str = sys.executable, **environ: str) -> None:
        self.state_dir = state_dir
        self.layout = Layout(state_dir)
        self.port = free_port()
        self.python = python
        self.run_kwargs: dict[str, Any] = {}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HOSTLER_", "PYTEST"))}
        small = {"WEB_WORKERS": "1", "WORKER_CONCURRENCY": "2", "CONTROL_CONCURRENCY": "2", "NODE_GPUS": "0"}
        self.environ = {**inherited, "PYTHONSAFEPATH": "1", **{f"HOSTLER_{k}": v for k, v in small.items()}, **environ}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def key(self) -> str:
        return (self.layout.secrets / "admin-key").read_text().strip()

    def argv(self, *arguments: str) -> list[str]:
        return [self.python, "-P", "-m", "hostler", *arguments, "--state-dir", str(self.state_dir)]

    def hostler(self, *arguments: str, said: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        """Its result; reading both pipes to their end also proves that nothing started holds them.

        ``said`` is what it finds on stdin.
        """
        return subprocess.run(
            self.argv(*arguments),
            env=self.environ | environ,
            input=said,
            capture_output=True,
            text=True,
            timeout=UP_S,
            check=False,
            **self.run_kwargs,
        )

    def must(self, *arguments: str, **environ: str) -> str:
        done = self.hostler(*arguments, **environ)
        assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def json(self, *arguments: str, **environ: str) -> Any:
        return json.loads(self.must(*arguments, "-o", "json", **environ))

    def up(self, *arguments: str, **environ: str) -> str:
        return self.must("up", "-d", "--port", str(self.port), *arguments, **environ)

    def call(self, method: str, path: str, body: Any = None, expect: int | tuple[int, ...] = 200) -> Any:
        try:
            answer = plain_http.request(
                method, f"{self.url}{path}", json=body, headers={"X-API-Key": self.key}, timeout=60, trust_env=False
            )
        except httpx2.TransportError as error:
            raise AssertionError(f"{method} {path}: {error}\n{self.last_words()}") from error
        wanted = expect if isinstance(expect, tuple) else (expect,)
        said = f"{method} {path}: {answer.status_code} {answer.text}"
        assert answer.status_code in wanted, f"{said}\n{self.last_words()}"
        return answer.json() if answer.content else None

    def last_words(self) -> str:
        """The end of each log, for a failure's message."""
        tails = [f"{path.name}: {path.read_text()[-1200:]}" for path in sorted(self.layout.logs.glob("*.log"))]
        return "\n".join(tails)

    def replica(self, **changes: Any) -> str:
        """A mock engine that serves; its replica id."""
        made = self.call("POST", "/api/v1/replicas", {**MOCK, "wait_for_ready": True, **changes}, 201)
        return str(made["replica_id"])

    def state_of(self, replica_id: str) -> str:
        return str(self.call("GET", f"/api/v1/replicas/{replica_id}")["status"])

    def processes(self, role: str = "") -> list[dict[str, Any]]:
        rows = json.loads(self.must("status", "-o", "json"))
        return [row for row in rows if role in ("", row["role"])]

    def pid(self, role: str) -> int:
        """The first process of the role: the one that supervisor, or the shim, started."""
        found = [one.process for one in (*control_plane(self.layout), *engines(self.layout)) if one.role == role]
        return min(found, key=lambda process: process.create_time()).pid

    def living(self) -> list[psutil.Process]:
        return [one.process for one in (*control_plane(self.layout), *engines(self.layout))]


@contextmanager
def stack(state_dir: Path, python: str = sys.executable, kind: type[Stack] = Stack, **environ: str) -> Iterator[Stack]:
    """A stack that is not up yet; at the end all of it is ended by pid and removed."""
    made = kind(state_dir, python, **environ)
    try:
        yield made
    finally:
        _end_rest(made.layout)
        end(engines(made.layout), wait_s=2)
        if made.layout.state_dir.exists():
            remove_place(made.layout)
            remove_run_dir(state_dir)
            shutil.rmtree(state_dir)


def gone(pid: int) -> bool:
    try:
        return is_zombie(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return True


def wait_gone(pid: int, timeout_s: float = 15) -> None:
    wait_until(lambda: gone(pid), timeout_s, f"the end of pid {pid}")
