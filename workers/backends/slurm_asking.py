"""Asking the host with Slurm's commands: one command per request, whatever it is about."""

from __future__ import annotations

import base64
import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from app.domain.slurm_script import DEFAULT_FOLDER
from workers.backends import slurm_job, slurm_seal, slurm_seats, slurm_share, slurm_there
from workers.backends.base import AlreadyLaunched, BackendError, BackendUnavailable, LaunchRefused
from workers.backends.far_clock import FarClock, now_ns
from workers.backends.slurm_queue import QueuedJob, format_of, read_fixed, read_json, version_of
from workers.transports.base import Transport, TransportError

#: What the interpreter there is told: to unpack the program and the request. What did not come whole is dropped. One
#: line, for some shells take no others.
_UNPACK = (
    "import sys; i = sys.stdin.buffer; n, m = map(int, i.readline().split() or (0, 0)); s = i.read(n); r = i.read(m); "
    "g = {'__name__': 'there'}; len(r) == m > 0 and (exec(compile(s, 'there', 'exec'), g), g['begin'](r))"
)
#: Read with the rest of this version: an upgrade may lay another one in its place while this process works.
_SOURCES = {
    one: Path(str(one.__file__)).read_text("ascii")
    for one in (slurm_job, slurm_seal, slurm_share, slurm_there, slurm_seats)
}
_NAMES = {"there": slurm_there.__name__, "seal": slurm_seal.__name__, "seats": slurm_seats.__name__}
#: Loads modules under their own names. What only attempts that share a job need is compiled where there are such.
_LOADER = f"""
import json, os, sys, types
def load(part):
    module = sys.modules[names[part]] = types.ModuleType(names[part])
    exec(compile(sources[names[part]], part, "exec"), module.__dict__)
    return module
def begin(request):
    request = json.loads(request.decode("ascii"))
    there = load("there")
    kind = there.There
    if "share" in request or os.path.isdir(os.path.join(os.path.expanduser(request["folder"]), "{slurm_seats.SHARED}")):
        load("seal")
        kind = load("seats").Seats
    there.serve(request, kind)
"""
_SENT = {one.__name__: _SOURCES[one] for one in (slurm_there, slurm_seal, slurm_seats)}
_PROGRAM = f"names = {_NAMES!r}\nsources = {_SENT!r}\n{_LOADER}".encode("ascii")
JOB_SOURCE = _SOURCES[slurm_job].encode("ascii")
#: Beyond what the request itself may take: to start an interpreter there and bring the answer back.
_ROUND_S = 5.0


class Host:
    """The host of one place, as a process of ours knows it."""

    def __init__(self, transport: Transport, options: Mapping[str, Any]) -> None:
        self._transport = transport
        self._options = options
        self._greeting: dict[str, Any] | None = None
        self._clock: FarClock | None = None

    @property
    def python(self) -> str:
        return self._options.get("python", "python3")

    def greet(self, timeout_s: float) -> dict[str, Any]:
        """Where things are there (``root``) and its version of Slurm (``form``: how to ask squeue)."""
        if self._greeting is None:
            told = self.ask("greet", timeout_s)
            form = format_of(version_of(told["version"]), self._options.get("squeue"))
            self._greeting = {"root": told["root"], "form": form, "version": told["version"]}
        return self._greeting

    def ask(self, verb: str, timeout_s: float, **request: Any) -> dict[str, Any]:
        """One command there. Raises BackendUnavailable, LaunchRefused, AlreadyLaunched or BackendError."""
        return self._judged(self._asked(verb, timeout_s, request))

    def ask_by(self, deadline_ns: int, verb: str, timeout_s: float, request: Mapping[str, Any]) -> dict[str, Any]:
        """``ask`` for what must not begin after ``deadline_ns``, of our boot clock; ``greet`` comes first.

        A name may stand for several login nodes. When another one answers than before, its clock is learnt from that
        answer, and it is asked again.
        """
        for last in (False, True):
            # of one answer: another thread may hear of another login node meanwhile
            clock = self._clock
            assert clock is not None
            by = {"boot_id": clock.boot_id, "deadline_s": clock.there(deadline_ns) / 1e9}
            answer = self._asked(verb, timeout_s, {**request, **by})
            if last or answer.get("refused") != "clock":
                break
        return self._judged(answer)

    def look(self, verb: str, timeout_s: float, **request: Any) -> dict[str, Any]:
        """As ``ask``, with the jobs in the queue read: ``jobs`` (None when the controller does not answer)."""
        answer = self.ask(verb, timeout_s, format=self.greet(timeout_s)["form"], **request)
        answer["now"] = datetime.fromtimestamp(answer["clock"]["at"], UTC)
        queue = answer.get("queue")
        if queue is not None:
            answer["jobs"] = read_jobs(queue) if queue["ok"] else None
        return answer

    def silence(self, answer: Mapping[str, Any]) -> str:
        return f"Slurm's controller cannot be asked from {self._transport.name}: {answer['queue']['message']}"

    def _asked(self, verb: str, timeout_s: float, request: Mapping[str, Any]) -> dict[str, Any]:
        options = self._options
        whole = {
            "verb": verb,
            "folder": options.get("folder", DEFAULT_FOLDER),
            "conf": options.get("slurm_conf"),
            "commands": options.get("commands"),
            "timeout_s": timeout_s,
            **request,
        }
        data = json.dumps(whole).encode("ascii")
        stdin = f"{len(_PROGRAM)} {len(data)}\n".encode() + _PROGRAM + data
        asked_ns = now_ns()
        try:
            done = self._transport.run(
                [self.python, "-I", "-S", "-c", _UNPACK], stdin=stdin, timeout_s=timeout_s + _ROUND_S
            )
        except TransportError as error:
            raise BackendUnavailable(str(error)) from error
        if done.code == 127:
            raise BackendError(
                f"there is no {self.python} on {self._transport.name}; the option python names another one"
            )
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()[-500:]
            raise BackendUnavailable(
                f"{self._transport.name} did not carry out {verb} (code {done.code}): {said}"
            ) from None
        read = answer["clock"]
        self._clock = FarClock(read["boot_id"], int(read["now_s"] * 1e9), asked_ns, now_ns())
        return answer

    def _judged(self, answer: dict[str, Any]) -> dict[str, Any]:
        kind, message = answer.get("refused"), answer.get("message", "")
        if kind in ("refused", "sealed"):
            raise LaunchRefused(message)
        if kind == "taken":
            raise AlreadyLaunched(message)
        if kind in ("late", "clock", "unavailable"):
            raise BackendUnavailable(message)
        if kind is not None:
            raise BackendError(f"{self._transport.name}: {message}")
        return answer


def read_jobs(queue: Mapping[str, Any]) -> list[QueuedJob]:
    """The jobs of an answer in which the controller was asked."""
    if queue["form"] == "json":
        return read_json(queue["jobs"])
    text = queue["text"]
    if queue.get("packed"):
        text = zlib.decompress(base64.b64decode(queue["packed"])).decode("utf-8", "surrogateescape")
    return read_fixed(text)


@cache
def share_program() -> bytes:
    """What a job with several attempts runs (``slurm_share.py``), as one file."""
    content = {"__main__.py": "from workers.backends.slurm_share import main\n\nmain()\n"}
    content |= {"workers/__init__.py": "", "workers/backends/__init__.py": ""}
    content |= {f"{one.__name__.replace('.', '/')}.py": _SOURCES[one] for one in (slurm_job, slurm_seal, slurm_share)}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as program:
        for path, data in content.items():
            program.writestr(path, data)
    return file.getvalue()


def packed(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def packed_text(text: str) -> str:
    return packed(text.encode("utf-8", "surrogateescape"))
