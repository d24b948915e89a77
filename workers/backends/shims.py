"""Starting shims. An interpreter takes longer to start than all else that a launch does, so one is kept in readiness.

It has done nothing yet and belongs to nobody's attempt: it waits for its plan, and ends when this process does.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import select
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping
from functools import cache
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from uuid import uuid4

from workers.backends import shim
from workers.backends.attempt_folder import write_private
from workers.backends.base import BackendUnavailable

#: Read with the rest of this version: an upgrade may lay another shim in its place while this process works.
_SOURCE = Path(shim.__file__).read_bytes()


class Shims:
    """The shims that one process starts."""

    def __init__(self, attempts: Path) -> None:
        self._attempts = attempts
        self._waiting: list[_Waiting] = []
        weakref.finalize(self, _dismiss, self._waiting)

    def prepare(self) -> None:
        """Have one ready, so that the next ``carry_out`` waits for no interpreter. Raises BackendUnavailable."""
        if not self._waiting:
            self._waiting.append(_Waiting(self._attempts))

    def carry_out(self, plan: bytes, timeout_s: float) -> str:
        """What a shim told until it had nothing more to say: the program was started, or nothing was.

        Raises BackendUnavailable when no process can be started.
        """
        while self._waiting:
            told = self._waiting.pop().carry_out(plan, timeout_s)
            if told is not None:
                return told
        return _Waiting(self._attempts).carry_out(plan, timeout_s) or ""

    def tend(self, folder: Path, log_bytes: int, pid: int, start: int) -> None:
        """Give a living engine a new shim, because its own was killed. Safe to call twice: one wins."""
        command = [*_interpreter(self._attempts), "tend", str(folder), str(log_bytes), str(pid), str(start)]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=_shim_environ(), start_new_session=True,
        )  # fmt: skip
        process.wait()


class _Waiting:
    """A shim that was started and waits for its plan: in memory, for it holds secrets, and complete when it is told."""

    def __init__(self, attempts: Path) -> None:
        self._plan = os.memfd_create("plan", os.MFD_CLOEXEC)
        listen, self._go = os.pipe()
        try:
            self._process = subprocess.Popen(
                [*_interpreter(attempts), "start", str(listen)], stdin=self._plan, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, env=_shim_environ(), start_new_session=True, pass_fds=(listen,),
            )  # fmt: skip
        except OSError as error:
            os.close(self._plan)
            os.close(self._go)
            raise BackendUnavailable(f"cannot start a process: {error.strerror}") from error
        finally:
            os.close(listen)

    def carry_out(self, plan: bytes, timeout_s: float) -> str | None:
        """What it told; None when it had ended before it could learn of the plan."""
        with os.fdopen(self._plan, "wb") as file:
            file.write(plan)
        try:
            os.write(self._go, b"!")
        except BrokenPipeError:
            with self._process:
                return None
        finally:
            os.close(self._go)
        with self._process:
            return _listen(self._process, timeout_s)

    def dismiss(self) -> None:
        """End it. It has done nothing, so nothing is lost."""
        os.close(self._plan)
        os.close(self._go)
        with self._process:
            self._process.kill()


def _dismiss(waiting: list[_Waiting]) -> None:
    while waiting:
        waiting.pop().dismiss()


def _listen(process: subprocess.Popen[bytes], timeout_s: float) -> str:
    assert process.stderr is not None
    told = b""
    end = time.monotonic() + timeout_s
    poll = select.poll()
    poll.register(process.stderr, select.POLLIN)
    while poll.poll(max(0.0, end - time.monotonic()) * 1000):
        part = os.read(process.stderr.fileno(), 65536)
        if not part:
            break
        told += part
    else:
        process.kill()  # past its deadline it starts nothing; if it published before, adopt() finds it
    return told.decode(errors="replace")


def _interpreter(attempts: Path) -> list[str]:
    return [sys.executable, "-I", "-S", str(_compiled_shim(attempts))]


def _compiled_shim(attempts: Path) -> Path:
    """The shim as bytecode: compiling it at every launch would cost 3 ms. Named by its content, so it is never stale.

    Not in ``__pycache__``, where many installations do not or may not write.
    """
    code, name = _shim_bytecode()
    path = attempts / name
    if not path.exists():
        attempts.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f"{name}.{uuid4().hex}")
        write_private(draft, code)
        draft.rename(path)
    return path


@cache
def _shim_bytecode() -> tuple[bytes, str]:
    # a header without date or hash: nobody imports it, so nobody compares it with its source
    code = MAGIC_NUMBER + bytes(12) + marshal.dumps(compile(_SOURCE, shim.__file__, "exec"))
    return code, f".shim-{hashlib.sha256(code).hexdigest()[:16]}.pyc"


def _shim_environ() -> Mapping[str, str]:
    """What the interpreter itself may need in order to start; the engine inherits none of it."""
    return {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
