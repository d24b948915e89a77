"""Handing an attempt to a shim: what it is told, what it answers, and what that means for the launch."""

from __future__ import annotations

import hashlib
import marshal
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import cache
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import NoReturn
from uuid import uuid4

from workers.backends import shim
from workers.backends.attempt_folder import RECORDS, RESERVED, AttemptFolder, stage, write_private
from workers.backends.base import AlreadyLaunched, BackendError, BackendUnavailable, Launch, LaunchRefused
from workers.backends.proc import MARK, boot_id

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PUBLISHED, _TAKEN, _LATE, _ERRNO = (word.decode() for word in shim.TOLD)


def launch_process(attempts: Path, launch: Launch, *, log_bytes: int, path: str, timeout_s: float) -> Path:
    """Start ``launch`` and return its folder once its program runs. Raises what ``Backend.launch`` raises.

    The plan is only carried out within ``timeout_s``: a launcher that was frozen meanwhile starts nothing.
    """
    deadline_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(timeout_s * 1e9)
    _check(launch)
    folder = attempts / launch.name
    if folder.exists():
        _refuse_taken(AttemptFolder(folder))
    environ = engine_environ(launch, folder, path)
    argv = [item.replace("{folder}", str(folder)) for item in launch.argv]
    program = _program(argv[0], environ["PATH"])
    known = {"host": launch.host, "port": launch.port, "log_bytes": log_bytes, "boot_id": boot_id()}
    try:
        staging = stage(attempts, launch.name, launch.files, known)
    except OSError as error:
        raise BackendError(f"cannot write the attempt's folder in {attempts}: {error.strerror}") from error
    fields = [str(staging), str(folder), str(deadline_ns), str(log_bytes), program, str(len(argv)), *argv]
    fields += [f"{name}={value}" for name, value in environ.items()]
    try:
        told = _run_shim(attempts, fields, timeout_s)
        _judge(told, argv[0], AttemptFolder(folder))
    finally:
        shutil.rmtree(staging, ignore_errors=True)  # it has another name by now if the launch happened
    return folder


def start_tending(folder: Path, log_bytes: int, pid: int, start: int) -> None:
    """Give a living engine a new shim, because its own was killed. Safe to call twice: one wins."""
    command = [*_interpreter(folder.parent), "tend", str(folder), str(log_bytes), str(pid), str(start)]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=_shim_environ(), start_new_session=True,
    )  # fmt: skip
    process.wait()


def engine_environ(launch: Launch, folder: Path, path: str) -> dict[str, str]:
    """Everything the engine will find in its environment; nothing comes from this process's own."""
    environ = {"PATH": path, "HOME": str(folder), "LANG": "C.UTF-8"}
    environ |= {name: value.replace("{folder}", str(folder)) for name, value in launch.env.items()}
    # the lease decides, not the wish; numbered as the driver (NVML) numbers them
    environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, launch.gpus))
    environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    environ[MARK] = launch.name
    return environ


def _check(launch: Launch) -> None:
    if not launch.argv or not launch.argv[0]:
        raise LaunchRefused("there is no program to run: argv is empty")
    if "/" in launch.name or launch.name.startswith(".") or not launch.name:
        raise LaunchRefused(f"{launch.name!r} cannot be the name of an attempt")
    for file in launch.files:
        if "/" in file or file in ("", ".", "..") or file in RESERVED | RECORDS or file.endswith(".new"):
            raise LaunchRefused(f"an engine's file cannot be called {file!r}")
    strings = [*launch.argv, *launch.env.keys(), *launch.env.values()]
    if any("\0" in item for item in strings):
        raise LaunchRefused("an argument or variable holds a NUL character")
    if any("=" in name or not name for name in launch.env):
        raise LaunchRefused("the name of a variable is empty or holds '='")


def _program(wanted: str, path: str) -> str:
    """Where the program is. Raises LaunchRefused when it is nowhere or cannot be run."""
    if "/" in wanted and not wanted.startswith("/"):
        return wanted  # relative to the attempt's folder, which is not there yet
    found = shutil.which(wanted, path=path)
    if found is None:
        where = "" if "/" in wanted else f" in {path}"
        raise LaunchRefused(f"there is no program {wanted!r} that can be run{where}")
    return found


def _run_shim(attempts: Path, fields: list[str], timeout_s: float) -> str:
    """What the shim told until it had nothing more to say: the program was started, or nothing was."""
    plan = os.memfd_create("plan", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(plan), "wb") as file:
            file.write("\0".join(fields).encode("utf-8", "surrogateescape"))
        os.lseek(plan, 0, os.SEEK_SET)
        process = subprocess.Popen(
            [*_interpreter(attempts), "start"], stdin=plan, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env=_shim_environ(), start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise BackendUnavailable(f"cannot start a process: {error.strerror}") from error
    finally:
        os.close(plan)
    with process:
        return _listen(process, timeout_s)


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


def _judge(told: str, program: str, folder: AttemptFolder) -> None:
    name = folder.path.name
    if told.startswith(_TAKEN):
        _refuse_taken(folder)
    if told.startswith(_LATE):
        raise BackendUnavailable(f"the launch of {name} took too long; nothing was started")
    if told.startswith(_PUBLISHED):
        rest = told.removeprefix(_PUBLISHED)
        if rest.startswith(_ERRNO):
            raise LaunchRefused(f"cannot run {program!r}: {os.strerror(int(rest.removeprefix(_ERRNO)))}")
        if not rest:
            return
    if not folder.exists():
        raise BackendUnavailable(f"the shim of {name} did not start: {told.strip()[-500:] or 'it said nothing'}")


def _refuse_taken(folder: AttemptFolder) -> NoReturn:
    if folder.is_sealed():
        raise LaunchRefused(f"{folder.path.name} was stopped before it was launched; nothing was started")
    raise AlreadyLaunched(f"{folder.path.name} was launched before; adopt it")


def _interpreter(attempts: Path) -> list[str]:
    return [sys.executable, "-I", "-S", str(_compiled_shim(attempts))]


def _compiled_shim(attempts: Path) -> Path:
    """The shim as bytecode: compiling it at every launch would cost 3 ms. Named by its content, so it is never stale.

    Not in ``__pycache__``, where many installations do not or may not write.
    """
    code, name = _shim_bytecode()
    path = attempts / name
    if not path.exists():
        draft = path.with_name(f"{name}.{uuid4().hex}")
        write_private(draft, code)
        draft.rename(path)
    return path


@cache
def _shim_bytecode() -> tuple[bytes, str]:
    source = Path(shim.__file__).read_bytes()
    # a header without date or hash: nobody imports it, so nobody compares it with its source
    code = MAGIC_NUMBER + bytes(12) + marshal.dumps(compile(source, shim.__file__, "exec"))
    return code, f".shim-{hashlib.sha256(code).hexdigest()[:16]}.pyc"


def _shim_environ() -> Mapping[str, str]:
    """What the interpreter itself may need in order to start; the engine inherits none of it."""
    return {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
