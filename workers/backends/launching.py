"""Handing an attempt to a shim: what it is told, what it answers, and what that means for the launch."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any, NoReturn

from workers.backends import shim
from workers.backends.attempt_folder import RECORDS, RESERVED, AttemptFolder, stage
from workers.backends.base import (
    AlreadyLaunched,
    BackendError,
    BackendUnavailable,
    Launch,
    LaunchRefused,
    ProgramMissing,
)
from workers.backends.proc import MARK, boot_id
from workers.backends.program import check_words
from workers.backends.shims import Shims

_PUBLISHED, _TAKEN, _LATE, _ERRNO = (word.decode() for word in shim.TOLD)


def launch_process(
    attempts: Path, shims: Shims, launch: Launch, *, log_bytes: int, path: str, timeout_s: float
) -> Path:
    """Start ``launch`` and return its folder once its program runs. Raises what ``Backend.launch`` raises.

    The plan is only carried out within ``timeout_s``: a launcher that was frozen meanwhile starts nothing.
    """
    deadline_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(timeout_s * 1e9)
    check(launch)
    folder = attempts / launch.name
    if folder.exists():
        refuse_taken(AttemptFolder(folder))
    environ = engine_environ(launch, folder, path)
    argv = [item.replace("{folder}", str(folder)) for item in launch.argv]
    program = _program(argv[0], environ["PATH"])
    known: dict[str, Any] = {"host": launch.host, "port": launch.port, "log_bytes": log_bytes, "boot_id": boot_id()}
    if launch.record:
        known["record"] = dict(launch.record)
    try:
        staging = stage(attempts, launch.name, launch.files, known)
    except OSError as error:
        raise BackendError(f"cannot write the attempt's folder in {attempts}: {error.strerror}") from error
    fields = [str(staging), str(folder), str(deadline_ns), str(log_bytes), program, str(len(argv)), *argv]
    fields += [f"{name}={value}" for name, value in environ.items()]
    try:
        told = shims.carry_out("\0".join(fields).encode("utf-8", "surrogateescape"), timeout_s)
        _judge(told, argv[0], AttemptFolder(folder))
    finally:
        shutil.rmtree(staging, ignore_errors=True)  # it has another name by now if the launch happened
    return folder


def engine_environ(launch: Launch, folder: Path, path: str) -> dict[str, str]:
    """Everything the engine will find in its environment; nothing comes from this process's own."""
    environ = {"PATH": path, "HOME": str(folder), "LANG": "C.UTF-8"}
    environ |= {name: value.replace("{folder}", str(folder)) for name, value in launch.env.items()}
    environ["PATH"] = environ["PATH"].replace("{path}", path)
    # the lease decides, not the wish; numbered as the driver (NVML) numbers them
    environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, launch.gpus))
    environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    environ[MARK] = launch.name
    return environ


def check(launch: Launch) -> None:
    """Raises LaunchRefused for what can be handed to no program."""
    check_words(launch)
    if "/" in launch.name or launch.name.startswith(".") or not launch.name:
        raise LaunchRefused(f"{launch.name!r} cannot be the name of an attempt")
    for file in launch.files:
        if "/" in file or file in ("", ".", "..") or file in RESERVED | RECORDS or file.endswith(".new"):
            raise LaunchRefused(f"an engine's file cannot be called {file!r}")


def _program(wanted: str, path: str) -> str:
    """Where the program is. Raises ProgramMissing when it is nowhere or cannot be run."""
    if "/" in wanted and not wanted.startswith("/"):
        return wanted  # relative to the attempt's folder, which is not there yet
    found = shutil.which(wanted, path=path)
    if found is None:
        where = "" if "/" in wanted else f" in {path}"
        raise ProgramMissing(f"there is no program {wanted!r} that can be run{where}")
    return found


def _judge(told: str, program: str, folder: AttemptFolder) -> None:
    name = folder.path.name
    if told.startswith(_TAKEN):
        refuse_taken(folder)
    if told.startswith(_LATE):
        raise BackendUnavailable(f"the launch of {name} took too long; nothing was started")
    if told.startswith(_PUBLISHED):
        rest = told.removeprefix(_PUBLISHED)
        if rest.startswith(_ERRNO):
            # a script whose interpreter is gone is one of them
            raise ProgramMissing(f"cannot run {program!r}: {os.strerror(int(rest.removeprefix(_ERRNO)))}")
        if not rest:
            return
    if not folder.exists():
        raise BackendUnavailable(f"the shim of {name} did not start: {told.strip()[-500:] or 'it said nothing'}")


def refuse_taken(folder: AttemptFolder) -> NoReturn:
    """The name has its launch: raises AlreadyLaunched, or LaunchRefused where it was stopped before."""
    if folder.is_sealed():
        raise LaunchRefused(f"{folder.path.name} was stopped before it was launched; nothing was started")
    raise AlreadyLaunched(f"{folder.path.name} was launched before; adopt it")
