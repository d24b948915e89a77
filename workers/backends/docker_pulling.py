"""Waits for an image that takes longer than a launch may, and starts the container then. A process of its own.

``python -P -m workers.backends.docker_pulling FOLDER`` reads the launch from stdin, for it holds secrets, inherits the
lock of the attempt's folder, and lets go of its parent. Killed, it leaves a launch that was never made. What it must
say is in the folder: ``pull.json`` while it waits, ``exit.json`` when the launch was refused.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from workers.backends import wire
from workers.backends.base import BackendError, BackendUnavailable, Launch, LaunchRefused
from workers.backends.container_folder import Claim, ContainerFolder
from workers.backends.docker_daemon import Daemon
from workers.backends.docker_launching import start_claimed
from workers.backends.docker_options import image_of
from workers.backends.proc import Identity, boot_id, send, stat

#: How often it says how far it got.
TELL_S = 0.5
#: A daemon that is away is asked again after so long, for so long altogether.
_PAUSES_S, AWAY_S = (2.0, 8.0, 32.0), 600.0
_ROOT = Path(__file__).resolve().parents[2]
_MIB = 1024 * 1024


def begin_pulling(taken: Claim, launch: Launch, socket: str, state_dir: Path, timeout_s: float) -> None:
    """Leave the launch to a process that pulls its image first. Raises BackendUnavailable when it does not begin."""
    plan = {
        # what a stack that lost its database needs is in the folder already
        "launch": wire.launch_to(replace(launch, record={})),
        "socket": socket,
        "state_dir": str(state_dir),
        "home": str(taken.home),
        "lock": taken.lock,
    }
    # credentials of registries are read where Docker's own client reads them
    known = {name: os.environ[name] for name in ("HOME", "PATH", "DOCKER_CONFIG") if name in os.environ}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "workers.backends.docker_pulling", str(taken.folder.path)],
            input=json.dumps(plan).encode(),
            capture_output=True,
            cwd=_ROOT,
            env={**known, "PYTHONSAFEPATH": "1", "PYTHONPATH": str(_ROOT)},
            pass_fds=(taken.lock,),
            start_new_session=True,
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackendUnavailable(f"the pull of {image_of(launch.options)} did not begin: {error}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[-500:]
        raise BackendUnavailable(f"the pull of {image_of(launch.options)} did not begin: {said}")


def stop_pulling(folder: ContainerFolder) -> None:
    """End the process that pulls for it, if one does."""
    who = Identity.of(folder.read("pull.json"), boot_id())
    if who is not None:
        send(who, signal.SIGTERM)


def main(path: str) -> None:
    plan = json.loads(sys.stdin.buffer.read())
    if os.fork():
        os._exit(0)
    for number in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), number)
    folder = ContainerFolder(Path(path))
    launch = wire.launch_of(plan["launch"])
    taken = Claim(folder, Path(plan["home"]), plan["lock"])
    try:
        _pull_and_start(taken, launch, Daemon(plan["socket"]), Path(plan["state_dir"]))
    except BackendError as error:
        if taken.holds():
            folder.write("exit.json", {"refused": str(error), "ended_at": time.time()})


def _pull_and_start(taken: Claim, launch: Launch, daemon: Daemon, state_dir: Path) -> None:
    own = stat(os.getpid())
    who = {"pid": os.getpid(), "start": own.start if own else 0, "boot_id": boot_id()}
    image = image_of(launch.options)

    def tell(why: str) -> bool:
        """False when it was stopped meanwhile."""
        if taken.home.exists():
            taken.folder.write("pull.json", {**who, "why": why})
            return True
        return False

    found = _pulled(daemon, image, tell)
    if found is None:
        return
    tell(f"image {image} is there; its container is being started")
    start_claimed(daemon, taken, launch, found, state_dir)


def _pulled(daemon: Daemon, image: str, tell: Callable[[str], bool]) -> dict[str, Any] | None:
    """What the daemon knows of the image once it has it; None when nobody wants it any more.

    A daemon that goes away meanwhile is asked again, as launches are: it may be restarted. Raises BackendError.
    """
    until = time.monotonic() + AWAY_S
    pauses = chain(_PAUSES_S, repeat(_PAUSES_S[-1]))
    while True:
        progress = Progress(image)
        try:
            told_at = time.monotonic()
            if not tell(progress.words()):
                return None
            for told in daemon.pull(image):
                progress.hear(told)
                if time.monotonic() - told_at >= TELL_S:
                    if not tell(progress.words()):
                        return None
                    told_at = time.monotonic()
            found = daemon.image(image)
        except BackendUnavailable as away:
            pause_s = next(pauses)
            if time.monotonic() + pause_s > until or not tell(f"the pull of {image} is tried again: {away}"):
                raise
            time.sleep(pause_s)
        else:
            if found is None:
                raise LaunchRefused(f"image {image} is not there, though the daemon pulled it")
            return found


class Progress:
    """How much of an image is there, from what the daemon tells layer by layer."""

    def __init__(self, image: str) -> None:
        self._image = image
        self._layers: dict[str, tuple[int, int]] = {}
        self._done: set[str] = set()

    def hear(self, told: Mapping[str, Any]) -> None:
        layer, status = told.get("id"), str(told.get("status", ""))
        if not layer:
            return
        detail = told.get("progressDetail") or {}
        if detail.get("total") and status.startswith("Downloading"):
            self._layers[layer] = int(detail.get("current") or 0), int(detail["total"])
        elif status.startswith(("Pull complete", "Already exists", "Download complete")):
            self._done.add(layer)
            _, total = self._layers.get(layer, (0, 0))
            self._layers[layer] = total, total
        else:
            self._layers.setdefault(layer, (0, 0))

    def words(self) -> str:
        """One line for people."""
        if not self._layers:
            return f"pulling image {self._image}"
        current, total = (sum(column) for column in zip(*self._layers.values(), strict=True))
        layers = f"{len(self._done)} of {len(self._layers)} layers"
        size = f", {current // _MIB} of {total // _MIB} MiB" if total else ""
        return f"pulling image {self._image}: {layers}{size}"


if __name__ == "__main__":
    main(sys.argv[1])
