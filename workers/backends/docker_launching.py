"""Making and starting the container of one attempt, once: by the name that a launcher holds (``container_folder``)."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from workers.backends.base import (
    AlreadyLaunched,
    BackendError,
    BackendUnavailable,
    Launch,
    LaunchRefused,
)
from workers.backends.container_folder import Claim, ContainerFolder, claim
from workers.backends.docker_config import container_config, inside, strayed_mount, with_address
from workers.backends.docker_daemon import LAUNCH_S, Daemon, NameTaken
from workers.backends.docker_options import image_of
from workers.backends.docker_program import check_program, environ_of
from workers.backends.docker_state import is_living, is_unstarted
from workers.backends.launching import check, refuse_taken
from workers.backends.proc import boot_id, oom_kills, stat

#: Podman reads requests for devices since this version; one before it starts the container without them.
_PODMAN_GPUS = (5, 5)


def take_name(folder: ContainerFolder, daemon: Daemon, launch: Launch, until: float | None, log_bytes: int) -> Claim:
    """The name of a launch, taken. Raises AlreadyLaunched, LaunchRefused, BackendError.

    What a launcher that was killed or froze left half made under it is cleared away first. ``until``: seconds of
    uptime after which nothing may be started; None where an image must be pulled before.
    """
    _clear(folder, daemon)
    known: dict[str, Any] = {"host": launch.host, "port": launch.port, "log_bytes": log_bytes, "boot_id": boot_id()}
    known |= {"image": image_of(launch.options), "until": until, "oom_kills": oom_kills()}
    known |= {"network": launch.options.get("network", "host"), "socket": daemon.socket}
    if launch.record:
        known["record"] = dict(launch.record)
    files = {name: with_address(content, launch) for name, content in launch.files.items()}
    try:
        taken = claim(folder, files, known)
    except OSError as error:
        raise BackendError(f"cannot write the attempt's folder in {folder.path.parent}: {error.strerror}") from error
    if taken is None:
        refuse_taken(folder)
    return taken


def start_claimed(daemon: Daemon, taken: Claim, launch: Launch, image: Mapping[str, Any], state_dir: Path) -> None:
    """Make the container and start it. When it raises, nothing runs, but for BackendUnavailable: then nobody knows."""
    folder, home = taken.folder, taken.home
    version = daemon.version()
    if launch.gpus and version.is_podman and version.parts < _PODMAN_GPUS:
        raise LaunchRefused(
            f"Podman {version.number} hands out no GPUs by its API; it takes {'.'.join(map(str, _PODMAN_GPUS))} or"
            " Docker"
        )
    known = folder.read("launch.json") or {}
    config = container_config(
        launch,
        image=image_of(launch.options),
        image_env=environ_of(image),
        home=home,
        state_dir=state_dir,
        user=launch.options.get("user") or _user(daemon),
        log_bytes=known.get("log_bytes", 0),
        is_podman=version.is_podman,
    )
    for mount in config["HostConfig"]["Mounts"][1:]:
        if Path(mount["Source"]).is_relative_to(state_dir):
            os.makedirs(mount["Source"], mode=0o700, exist_ok=True)
    container = _create(daemon, launch.name, config)
    try:
        _check_mounts(daemon, container, config)
        check_program(daemon, container, inside(launch, home)[0], config)
        until = known.get("until")
        if until is not None and time.clock_gettime(time.CLOCK_BOOTTIME) > until:
            raise BackendUnavailable(f"the launch of {launch.name} took too long; nothing was started")
    except (LaunchRefused, BackendUnavailable):
        with suppress(BackendError):
            daemon.remove(container)
        raise
    try:
        daemon.start(container)
    except LaunchRefused:
        with suppress(BackendError):
            daemon.remove(container)
        raise
    # where its answer was lost the container stays: it may run, or be all that tells that it ran
    note_started(folder, daemon.find(container, LAUNCH_S) or {"Id": container})


def note_started(folder: ContainerFolder, seen: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what identifies the container and its first process; returns it."""
    record: dict[str, Any] = {"id": seen["Id"], "boot_id": boot_id()}
    state = seen.get("State") or {}
    if state.get("Pid") and is_living(seen):
        process = stat(state["Pid"])
        record |= {"pid": state["Pid"], "started_at": state["StartedAt"]}
        if process is not None:
            record["start"] = process.start
    if folder.exists():
        with suppress(OSError):
            folder.write("container.json", record)
    return record


def prepare_launch(launch: Launch) -> None:
    """Raises LaunchRefused for what can be told without asking anybody."""
    check(launch)
    image_of(launch.options)


def _clear(folder: ContainerFolder, daemon: Daemon) -> None:
    """Make room for a launch under the name, where none runs, ran or is about to."""
    seen = daemon.find(folder.path.name, LAUNCH_S)
    if seen is not None and not is_unstarted(seen):
        refuse_taken(folder)
    if not folder.exists():
        if seen is not None:
            # somebody made it and lost its folder: it cannot be started any more
            daemon.remove_unstarted(seen["Id"])
        return
    if folder.is_sealed() or folder.read("container.json") or folder.read("exit.json"):
        refuse_taken(folder)
    with folder.locked() as free:
        if not free and not folder.is_overdue():
            refuse_taken(folder)
        # first this, so that one who is frozen can start nothing; then what it may have started
        folder.revoke()
        seen = daemon.find(folder.path.name, LAUNCH_S)
        if seen is not None and not is_unstarted(seen):
            refuse_taken(folder)
        if seen is not None:
            daemon.remove_unstarted(seen["Id"])
        folder.remove()


def _check_mounts(daemon: Daemon, container: str, config: Mapping[str, Any]) -> None:
    """A daemon may read more in a path than we did: what it made of them is asked before anything runs."""
    seen = daemon.find(container, LAUNCH_S)
    if seen is None:
        raise BackendUnavailable(f"container {container} was removed before it was started")
    strayed = strayed_mount(config["HostConfig"]["Mounts"], seen)
    if strayed:
        raise LaunchRefused(f"the daemon made other mounts than it was asked for: {strayed}; nothing was started")


def _create(daemon: Daemon, name: str, config: Mapping[str, Any]) -> str:
    try:
        return daemon.create(name, config)
    except NameTaken as taken:
        # asked for by a launcher that is gone, and only now made
        seen = daemon.find(name, LAUNCH_S)
        if seen is None or not is_unstarted(seen):
            raise AlreadyLaunched(f"{name} was launched before; adopt it") from taken
        daemon.remove_unstarted(seen["Id"])
        return daemon.create(name, config)


def _user(daemon: Daemon) -> str:
    """The worker's own, so that it may do in the folders that it is given what the worker may, and no more."""
    info = daemon.info()
    rootless = info.get("Rootless") or "name=rootless" in (info.get("SecurityOptions") or ())
    return "0:0" if rootless else f"{os.getuid()}:{os.getgid()}"
