"""A gateway that is measured: where it listens, which processes it is, and what a request must carry."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import psutil

from benchmarks.stack import free_port, wait_until
from benchmarks.upstream import MODEL

#: LiteLLM takes long to load.
START_S = 90
PATH = "/v1/chat/completions"


@dataclass(frozen=True)
class Gateway:
    """One side of the comparison. ``pids`` are asked for anew each time: children may have come."""

    name: str
    port: int
    pids: Callable[[], Sequence[int]]
    headers: Mapping[str, str] = field(default_factory=dict)

    def cpu_s(self) -> float:
        """CPU seconds that its processes have used so far."""
        used = 0.0
        for pid in self.pids():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = psutil.Process(pid).cpu_times()
                used += times.user + times.system
        return used


@contextlib.contextmanager
def program(
    name: str,
    core: int,
    argv: Callable[[Path, int], Sequence[str]],
    environ: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Iterator[Gateway]:
    """Start ``argv(folder, port)`` on one core, wait until it answers a completion; ended by pid afterwards."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix=f"hb-{name}.") as place:
        folder = Path(place)
        log = folder / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["taskset", "-c", str(core), *argv(folder, port)],
                env={**os.environ, **(environ or {})},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        found = Gateway(name, port, lambda: _family(process.pid), headers or {})
        try:
            wait_until(lambda: _answers(found, process, log), START_S, f"{name} answers", every_s=0.2)
            yield found
        finally:
            _end(process)


def _family(pid: int) -> list[int]:
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def _answers(gateway: Gateway, process: subprocess.Popen[bytes], log: Path) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"{gateway.name} ended with {process.returncode}: {log.read_text()[-800:]}")
    return asked(gateway) == ""


def asked(gateway: Gateway) -> str:
    """Ask for one completion; what is wrong with the answer, empty when nothing is."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "are you ready?"}]}
    url = f"http://127.0.0.1:{gateway.port}{PATH}"
    try:
        answer = httpx2.post(url, json=body, headers=dict(gateway.headers), timeout=10, trust_env=False)
    except httpx2.TransportError as error:
        return f"{type(error).__name__}: {error}"
    return "" if answer.status_code == 200 else f"{answer.status_code} {answer.text[:300]}"


def _end(process: subprocess.Popen[bytes]) -> None:
    family = [psutil.Process(pid) for pid in _family(process.pid)]
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    _, left = psutil.wait_procs(family, timeout=10)
    for one in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait(10)
