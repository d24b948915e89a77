"""Run an engine's planned command as a bare child, the way a backend would: files 0600, environment from nothing."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.engines.base import Command, Engine, EngineRequest
from app.settings import Settings
from app.stack.haproxy import haproxy_program
from tests.standins import QDRANT, SGLANG, VLLM
from tests.support import embedded
from tests.support.ports import free_port
from workers.probes.http import look
from workers.probes.wire import ProbeTarget

#: What is run for engines whose program is a setting: stand-ins, and the HAProxy that the stack uses.
PROGRAMS = {
    "vllm": VLLM,
    "sglang": SGLANG,
    "qdrant": QDRANT,
    "openai-compatible": str(haproxy_program(Settings())),
}
KEY = "engine-key-of-the-tests-0123456789"
HOST = "127.0.0.1"
_READY_S = 20


@dataclass
class Running:
    """A started engine."""

    engine: Engine
    config: dict[str, Any]
    command: Command
    process: subprocess.Popen[bytes]
    folder: Path
    port: int

    @property
    def base_url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def target(self, key: str = KEY, path: str | None = None) -> ProbeTarget:
        path = self.engine.readiness(self.config).path if path is None else path
        return ProbeTarget(HOST, self.port, path, key)

    def wait_ready(self, deadline_s: float = _READY_S) -> None:
        found = look(self.target(), lambda: self.process.poll() is None, deadline_s)
        assert found is not None, f"it died with {self.process.poll()}:\n{self.log}"
        assert found.ok, found

    def wait_exit(self, deadline_s: float = 5) -> int:
        return self.process.wait(deadline_s)


@contextmanager
def running(
    engine: Engine,
    folder: Path,
    *,
    port: int = 0,
    model: Path | None = None,
    request: Mapping[str, Any] | None = None,
    **config: Any,
) -> Iterator[Running]:
    """``engine`` started in ``folder`` with ``config``; killed at the end when it still lives.

    ``request`` holds more fields of the EngineRequest.
    """
    port = port or free_port()
    asked = EngineRequest(
        model_name="tiny",
        model_path=model,
        host=HOST,
        port=port,
        config=config,
        engine_key=KEY,
        program=tuple(shlex.split(PROGRAMS.get(engine.name, ""))),
        data_dir=folder / "data",
    )
    command = engine.command(replace(asked, **(request or {})))
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in command.files.items():
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w") as file:
            file.write(content)

    def placed(word: str) -> str:
        return word.replace("{folder}", str(folder))

    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [placed(word) for word in command.argv],
            cwd=folder,
            env={"PATH": "/usr/bin:/bin", **{name: placed(value) for name, value in command.env.items()}},
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
    try:
        yield Running(engine, config, command, process, folder, port)
    finally:
        process.kill()
        process.wait()


def wait_until(condition: Callable[[], bool], what: str, deadline_s: float = 5) -> None:
    """Fails saying ``what`` was awaited."""
    embedded.wait_until(condition, deadline_s, what)
