"""A stack of a benchmark's own: started by ``hostler up``, in a folder of its own, ended by pid."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from app.settings import Settings
from app.stack.urls import broker_url, database_url

UP_LIMIT_S = 120
DOWN_LIMIT_S = 120


class Api:
    """One kept-alive connection to one stack, with its admin key."""

    def __init__(self, port: int, key: str) -> None:
        self.port, self.key = port, key
        self._connection = self._connect()

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=330)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and parsed body. A kept connection that the server closed is opened again, once."""
        head = {"X-API-Key": self.key, "Content-Type": "application/json"}
        head |= {name.replace("_", "-"): value for name, value in headers.items()}
        data = None if body is None else json.dumps(body)
        for last in (False, True):
            try:
                self._connection.request(method, path, data, head)
                response = self._connection.getresponse()
                raw = response.read()
                return response.status, json.loads(raw) if raw else None
            except (http.client.HTTPException, ConnectionError):
                self._connection.close()
                self._connection = self._connect()
                if last:
                    raise
        raise AssertionError("unreachable")

    def must(self, expected: int | tuple[int, ...], method: str, path: str, body: Any = None, **headers: str) -> Any:
        """The body; RuntimeError when the status is another than expected."""
        status, answer = self.call(method, path, body, **headers)
        wanted = expected if isinstance(expected, tuple) else (expected,)
        if status not in wanted:
            raise RuntimeError(f"{method} {path} answered {status}: {json.dumps(answer)[:500]}")
        return answer

    def create(self, body: Mapping[str, Any], prefer: str = "") -> str:
        """The new replica's id. Does not wait unless ``prefer`` says so (``wait=30``)."""
        wish = {"wait_for_ready": bool(prefer), "run_diagnostics": False, **body}
        headers = {"Prefer": prefer} if prefer else {}
        return str(self.must((201, 202), "POST", "/api/v1/replicas", wish, **headers)["replica_id"])

    def replica(self, replica_id: str) -> dict[str, Any]:
        return dict(self.must(200, "GET", f"/api/v1/replicas/{replica_id}"))

    def count(self, **filters: str) -> int:
        """How many replicas there are, by the list's own total."""
        query = "&".join(f"{name}={value}" for name, value in {"limit": "1", **filters}.items())
        return int(self.must(200, "GET", f"/api/v1/replicas?{query}")["total"])


class Stack:
    """A running stack. ``settings`` are those of its processes, for parts that look at its database."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.state_dir = folder / "s"
        self.port = free_port()
        self.key = secrets.token_urlsafe(32)
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HOSTLER_")},
            "HOSTLER_API_KEY": self.key,
            "HOSTLER_STATE_DIR": str(self.state_dir),
            "PYTHONSAFEPATH": "1",
            **settings,
        }

    @property
    def settings(self) -> Settings:
        return Settings.load(self.environ)

    @property
    def api(self) -> Api:
        return Api(self.port, self.key)

    @property
    def database_url(self) -> str:
        """For psycopg itself, so without SQLAlchemy's driver name."""
        return database_url(self.settings).replace("postgresql+psycopg://", "postgresql://", 1)

    @property
    def broker_url(self) -> str:
        return broker_url(self.settings)

    def hostler(self, *arguments: str, limit_s: float = 60) -> str:
        """Run our own command on this stack; its stdout. RuntimeError with its talk when it fails."""
        done = subprocess.run(
            [sys.executable, "-m", "hostler", *arguments, "--state-dir", str(self.state_dir)],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit_s,
        )
        if done.returncode:
            raise RuntimeError(f"hostler {' '.join(arguments)} ended with {done.returncode}: {done.stderr[-800:]}")
        return done.stdout

    def up(self) -> float:
        """Seconds until ``hostler up -d`` returned, which is when /health answered 200."""
        started = time.perf_counter()
        self.hostler("up", "-d", "--port", str(self.port), limit_s=UP_LIMIT_S)
        return time.perf_counter() - started

    def down(self, *arguments: str) -> None:
        self.hostler("down", *arguments, limit_s=DOWN_LIMIT_S)

    def processes(self) -> list[dict[str, Any]]:
        """``[{role, pid, listen}]`` of all that belongs to this stack."""
        return list(json.loads(self.hostler("status", "-o", "json")))

    def pids(self, role: str) -> list[int]:
        """All processes of that role, children too."""
        return [int(row["pid"]) for row in self.processes() if row["role"] == role]


@contextlib.contextmanager
def stack(**settings: str) -> Iterator[Stack]:
    """A stack that is up; afterwards it is down, its folder gone, and what would not end was killed by pid."""
    with prepared(**settings) as made:
        made.up()
        yield made


@contextlib.contextmanager
def prepared(**settings: str) -> Iterator[Stack]:
    """The same, not yet started."""
    folder = Path(tempfile.mkdtemp(prefix="hb."))
    folder.chmod(0o711)  # Postgres runs as another user when we are root, and must pass through
    made = Stack(folder, {"HOSTLER_LOG_LEVEL": "warning", **settings})
    try:
        yield made
    except BaseException:
        _show_defects(made.state_dir)
        raise
    finally:
        try:
            if made.state_dir.exists():
                made.down()
        finally:
            _kill_what_is_left(made.state_dir)
            shutil.rmtree(folder, ignore_errors=True)


def wait_until(condition: Callable[[], bool], limit_s: float, what: str, every_s: float = 0.005) -> float:
    """Seconds until ``condition`` held. Raises TimeoutError."""
    started = time.perf_counter()
    while not condition():
        if time.perf_counter() - started > limit_s:
            raise TimeoutError(f"not within {limit_s} s: {what}")
        time.sleep(every_s)
    return time.perf_counter() - started


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _show_defects(state_dir: Path) -> None:
    """The last traceback of each log: the folder goes with the stack."""
    for log in sorted((state_dir / "logs").glob("*.log")):
        _, mark, last = log.read_text(errors="replace").rpartition("Traceback")
        if mark:
            print(f"{log.name}: {mark}{last[:4000]}", file=sys.stderr)


def _kill_what_is_left(state_dir: Path) -> None:
    """Only processes that name this very folder, which nobody but this run knows."""
    mark = str(state_dir)
    for process in psutil.process_iter(["pid", "cmdline", "cwd"]):
        words = [*(process.info["cmdline"] or []), process.info["cwd"] or ""]
        if process.info["pid"] != os.getpid() and any(mark in word for word in words):
            print(f"left after down, killed: {process.info['pid']} {' '.join(words)[:200]}", file=sys.stderr)
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.info["pid"], signal.SIGKILL)
