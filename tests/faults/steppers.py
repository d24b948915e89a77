"""The test's side of ``stepper``: start workers that die or freeze somewhere, and see what became of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.support.crew import ROOT, Crew, environment
from tests.support.embedded import wait_until
from tests.support.records import WAIT_S

#: The forks look for readiness themselves, however slow the machine: what comes after is to be reached, too.
LOOK_S = 10.0


@dataclass
class Fork:
    """One worker."""

    case: str
    pid: int
    folder: Path
    steppers: Steppers = field(repr=False)

    @property
    def replica(self) -> str:
        path = self.folder / f"{self.case}.replica"
        wait_until(lambda: path.exists() or self.ended, WAIT_S, f"{self.case} to begin; {self.steppers.trouble()}")
        assert path.exists(), self.result
        return path.read_text()

    @property
    def state(self) -> str:
        """Its letter in /proc; empty when it is gone."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return ""

    @property
    def ended(self) -> bool:
        return self.state in ("", "Z", "X")

    @property
    def result(self) -> dict[str, Any]:
        """What it came to; empty when it was killed on the way."""
        path = self.folder / f"{self.case}.done"
        return json.loads(path.read_text()) if path.exists() else {}

    @property
    def outcome(self) -> str:
        found = self.result
        assert "error" not in found, found["error"]
        return str(found.get("outcome", ""))

    def await_ended(self) -> None:
        wait_until(lambda: self.ended, WAIT_S, f"{self.case} to end; it is {self.state}")

    def await_frozen(self) -> None:
        wait_until(lambda: self.state in ("T", "t") or self.ended, WAIT_S, f"{self.case} to freeze")

    def thaw(self) -> None:
        # one that never came to its line has ended already
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)


class Steppers:
    """Forks workers of the crew's stack that nobody rings for."""

    def __init__(self, crew: Crew, folder: Path) -> None:
        folder.mkdir()
        self.crew = crew
        self.folder = folder
        self._count = 0
        self._log = open(folder / "stepper.log", "wb")  # noqa: SIM115 - closed by ``close``
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.stepper", str(folder)],
            env=environment(replace(crew.settings, look_s=LOOK_S)),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,
        )

    def fork(self, act: str, **case: Any) -> Fork:
        """Start one; see ``stepper`` for what a case may say."""
        self._count += 1
        name = f"{act}-{self._count}"
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"id": name, "act": act, "actor": self.crew.actor.key_id, **case}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, self.trouble()
        return Fork(name, int(answer), self.folder, self)

    def open_gate(self, name: str) -> None:
        (self.folder / name).touch()

    def trouble(self) -> str:
        return (self.folder / "stepper.log").read_text(errors="replace")[-3000:]

    def close(self) -> None:
        # its forks too, frozen ones included
        os.killpg(self._process.pid, signal.SIGKILL)
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                stream.close()
        self._process.wait(WAIT_S)


@contextmanager
def open_steppers(crew: Crew, folder: Path) -> Iterator[Steppers]:
    steppers = Steppers(crew, folder)
    try:
        yield steppers
    finally:
        steppers.close()
