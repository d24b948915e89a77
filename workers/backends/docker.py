"""Runs engines in containers of this host, by the socket of Docker or Podman, through Docker's SDK.

What runs, and how it ended, is the daemon's word; while it cannot be asked, nothing is known. Beside it stands a folder
per attempt (``container_folder``), by which a launch happens once, whoever is killed or frozen within it.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from app.domain.abilities import OUTLIVES_LEADER, OWNS_OUTPUT, RUNS_BARE
from workers.backends import attempt_folder, hardware, stopping
from workers.backends.base import (
    LOG_PART_BYTES,
    BackendContext,
    BackendError,
    BackendUnavailable,
    Fingerprint,
    Handle,
    Launch,
    LaunchRefused,
    Liveness,
    LogPart,
    Observation,
)
from workers.backends.container_folder import ContainerFolder
from workers.backends.docker_config import ATTEMPT
from workers.backends.docker_daemon import Daemon
from workers.backends.docker_launching import note_started, prepare_launch, start_claimed, take_name
from workers.backends.docker_observing import (
    RECORDED_S,
    Look,
    ended,
    moment,
    without_container,
)
from workers.backends.docker_options import OPTIONS_SCHEMA, image_of
from workers.backends.docker_output import read_lines, read_part, tail_place
from workers.backends.docker_pulling import begin_pulling, stop_pulling
from workers.backends.docker_state import (
    abandoned,
    is_abandoned,
    is_ended,
    is_forgotten,
    is_living,
    is_unstarted,
    may_be_abandoned,
)
from workers.backends.proc import Identity, boot_id, lives, oom_kills, open_pidfd, send, stat

#: From so many handles on, one list of all containers is cheaper than a look at each.
_LIST_FROM = 4
#: Looks that are closer to each other count as one, for what the kernel killed meanwhile.
_APART_S = 4.0


class DockerBackend:
    name = "docker"
    summary = "Containers of the worker's own host, by the socket of Docker or Podman."
    host_bound = True
    serves_http = True
    queues = True
    puts_address = True
    #: an init stands between, the end of its first process ends all, and the daemon keeps the output
    lacks = frozenset({RUNS_BARE, OUTLIVES_LEADER, OWNS_OUTPUT})
    place_options: tuple[str, ...] = ("socket",)
    options_schema: Mapping[str, Any] = OPTIONS_SCHEMA

    def __init__(self, context: BackendContext) -> None:
        self._context = context
        self._attempts = context.state_dir / "containers"
        self._daemon = Daemon(str(context.options.get("socket", "")))
        #: by attempt: when it was seen running, and how many kills for want of memory the kernel had counted by then;
        #: the last two times, some seconds apart
        self._oom_kills: dict[str, tuple[tuple[float, int], ...]] = {}

    def fingerprint(self, options: Mapping[str, Any], timeout_s: float = 5) -> Fingerprint:
        attributes = hardware.describe(self._context.node_gpus)
        try:
            version = self._daemon.version(timeout_s)
            wrong = self._lacks_image(options, timeout_s)
        except BackendError as error:
            return Fingerprint(False, str(error), attributes, fix=f"ls -l {self._daemon.socket}")
        told = f"{version.name} {version.number}"
        fix = f"pull {options['image']} by hand, or set the pool option pull" if wrong else ""
        attributes = {**attributes, "daemon": told}
        return Fingerprint(True, f"{told} answers at {self._daemon.socket}", attributes, wrong, fix)

    def _lacks_image(self, options: Mapping[str, Any], timeout_s: float) -> str:
        """What launches will meet where the pool's image is not there and none is pulled."""
        image = options.get("image")
        if not image or options.get("pull") != "never" or self._daemon.image(image, timeout_s) is not None:
            return ""
        return f"image {image} is not there, and is not pulled (option pull)"

    def prepare(self) -> None:
        return

    def adopt(self, name: str, timeout_s: float = 5) -> Handle | None:
        folder = self._folder(name)
        seen = self._find(name, timeout_s)
        if seen is not None and not is_unstarted(seen):
            return self._handle(folder, seen)
        if not folder.exists() or folder.is_sealed():
            return None
        if folder.read("container.json") or folder.read("exit.json"):
            return self._handle(folder, seen)
        # half made: by one who still is about it, or by one who is gone, and whose place is free
        return self._handle(folder, seen) if folder.is_held() and not folder.is_overdue() else None

    def launch(self, launch: Launch, timeout_s: float = 20) -> Handle:
        until = time.clock_gettime(time.CLOCK_BOOTTIME) + timeout_s
        prepare_launch(launch)
        name, options = image_of(launch.options), launch.options
        folder = self._folder(launch.name)
        image = self._daemon.image(name)
        if image is None and options.get("pull") == "never":
            raise LaunchRefused(f"image {name} is not there, and the option pull says never; pull it by hand")
        log_bytes = options.get("log_bytes", self._context.log_bytes)
        taken = take_name(folder, self._daemon, launch, None if image is None else until, log_bytes)
        try:
            if image is None:
                begin_pulling(taken, launch, self._daemon.socket, self._context.state_dir, timeout_s)
            else:
                start_claimed(self._daemon, taken, launch, image, self._context.state_dir)
        except LaunchRefused:
            taken.give_up()
            raise
        finally:
            taken.close()
        return self._handle(folder, None)

    def inspect(self, handles: Sequence[Handle], timeout_s: float = 5) -> list[Observation]:
        look, seen = Look(), []
        states: Mapping[str, str] | None = None
        for place, handle in enumerate(handles):
            try:
                if place == 0 and len(handles) >= _LIST_FROM:
                    states = self._states(timeout_s)
                seen.append(self._observe(handle, look, states, timeout_s))
            except BackendUnavailable as away:
                # whoever does not answer for one is not asked for the next
                rest = len(handles) - place
                return seen + [Observation(Liveness.UNKNOWN, message=str(away))] * rest
        return seen

    def stop(self, handle: Handle, *, grace_s: float, force: bool = False, timeout_s: float = 5) -> Observation:
        folder = self._folder(handle.name)
        seen = self._find(handle.name, timeout_s)
        if seen is None or is_unstarted(seen):
            if not folder.read("container.json") and not folder.read("exit.json"):
                self._seal(folder)
            seen = self._find(handle.name, timeout_s)
        if seen is None or not is_living(seen):
            return self._see(handle)
        try:
            asked_s = stopping.ask(folder, time.clock_gettime(time.CLOCK_BOOTTIME))
            if force or asked_s >= grace_s:
                self._kill(folder, seen)
            else:
                self._terminate(folder, seen)
        except OSError as error:
            raise BackendError(f"cannot stop {handle.name}: {error.strerror} ({error.filename}); use force") from error
        return self._see(handle)

    def logs(self, handle: Handle, *, tail: int | None = None, timeout_s: float = 5) -> Iterator[str]:
        if not self._is_known(handle.name):
            return iter(())
        kept = self._kept_bytes(handle.name)
        return iter(read_lines(self._daemon, self._container(handle.name), tail, kept, timeout_s))

    def read_log(self, handle: Handle, place: str = "", limit: int = LOG_PART_BYTES, timeout_s: float = 5) -> LogPart:
        if not self._is_known(handle.name):
            return LogPart(b"", place)
        return read_part(self._daemon, self._container(handle.name), place, limit, timeout_s)

    def tail_place(self, handle: Handle, lines: int, timeout_s: float = 5) -> str:
        if not self._is_known(handle.name):
            return ""
        return tail_place(self._daemon, self._container(handle.name), lines, timeout_s)

    def recall(self, name: str) -> Mapping[str, Any] | None:
        return (self._folder(name).read("launch.json") or {}).get("record")

    def close(self, handle: Handle, timeout_s: float = 5) -> None:
        seen = self._see(handle)
        if not seen.liveness.gone:
            raise BackendError(f"{handle.name} is not gone ({seen.message or seen.liveness}); stop it first")
        if self._is_known(handle.name):
            left = self._find(handle.name, timeout_s)
            if left is not None and is_abandoned(left):
                self._daemon.remove_abandoned(self._container(handle.name))
            else:
                # not by force: what runs is never removed
                self._daemon.remove(self._container(handle.name))
        self._oom_kills.pop(handle.name, None)
        if self._folder(handle.name).exists():
            self._folder(handle.name).remove()

    def watch_fd(self, handle: Handle) -> int | None:
        engine = Identity.of(handle.ref, boot_id())
        if engine is None:
            engine = Identity.of(self._folder(handle.name).read("container.json"), boot_id())
        return open_pidfd(engine) if engine else None

    def list_marked(self, prefix: str) -> list[str]:
        found = {
            name for name in attempt_folder.names(self._attempts) if name.startswith(prefix) and self._is_here(name)
        }
        if self._daemon.is_there():
            labels = (one["Labels"] for one in self._daemon.containers({ATTEMPT: None}))
            found |= {one[ATTEMPT] for one in labels if one[ATTEMPT].startswith(prefix)}
        return sorted(found)

    def tidy(self, *, dry_run: bool = False) -> list[str]:
        return attempt_folder.tidy(self._attempts, dry_run=dry_run)

    def _folder(self, name: str) -> ContainerFolder:
        if "/" in name or name.startswith(".") or not name:
            raise BackendError(f"{name!r} is not the name of an attempt")
        return ContainerFolder(self._attempts / name)

    def _container(self, name: str) -> str:
        """What the daemon knows it by: its id, for somebody may give it another name; before it ran, its name."""
        return str((self._folder(name).read("container.json") or {}).get("id") or name)

    def _handle(self, folder: ContainerFolder, seen: Mapping[str, Any] | None) -> Handle:
        known, container = folder.read("launch.json") or {}, folder.read("container.json")
        if container is None and seen is not None and not is_unstarted(seen):
            # its launcher died before it could write it down
            container = note_started(folder, seen)
        ref = {field: known[field] for field in ("host", "port") if field in known}
        return Handle(self.name, folder.path.name, ref | (container or {}))

    def _is_here(self, name: str) -> bool:
        """Whether it was launched by this daemon, and not by another one of this host."""
        own = self._daemon.socket
        return (self._folder(name).read("launch.json") or {}).get("socket", own) == own

    def _is_known(self, name: str) -> bool:
        """Whether the daemon may have something of it; spares hosts without a daemon the question."""
        return self._folder(name).exists() or self._daemon.is_there()

    def _kept_bytes(self, name: str) -> int:
        known = self._folder(name).read("launch.json") or {}
        return int(known.get("log_bytes") or self._context.log_bytes)

    def _states(self, timeout_s: float) -> dict[str, str]:
        found = self._daemon.containers({ATTEMPT: None}, timeout_s)
        return {one["Labels"][ATTEMPT]: one["State"] for one in found}

    def _see(self, handle: Handle) -> Observation:
        return self._observe(handle, Look(), None, 5)

    def _observe(self, handle: Handle, look: Look, states: Mapping[str, str] | None, timeout_s: float) -> Observation:
        """Raises BackendUnavailable; what else is wrong with this one makes it unknown."""
        try:
            folder = self._folder(handle.name)
            known = self._known(folder, handle)
            self._note_kills(handle.name, known)
            if states is not None and states.get(handle.name) == "running" and lives(Identity.of(known, boot_id())):
                return look.running(handle.name, {}, known, self._network(folder))
            if not folder.exists() and not self._daemon.is_there():
                return without_container(folder, known)
            seen = self._settled(handle.name, known, look, timeout_s)
            if seen is None or is_unstarted(seen):
                return without_container(folder, known)
            if is_living(seen):
                return look.running(handle.name, seen["State"], known, seen["HostConfig"]["NetworkMode"])
            if is_ended(seen):
                return ended(folder, seen, self._kills_before(folder, seen))
            return Observation(Liveness.UNKNOWN, message=f"its container is {seen['State']['Status']}")
        except BackendUnavailable:
            raise
        except (OSError, BackendError) as error:
            return Observation(Liveness.UNKNOWN, message=f"cannot be seen: {error}")

    def _note_kills(self, name: str, known: Mapping[str, Any]) -> None:
        now, counted, kept = time.time(), oom_kills(), self._oom_kills.get(name, ())
        if lives(Identity.of(known, boot_id())) and not (kept and abs(now - kept[-1][0]) < _APART_S):
            self._oom_kills[name] = (*kept[-1:], (now, counted))

    def _kills_before(self, folder: ContainerFolder, seen: Mapping[str, Any]) -> int | None:
        """Kills that were counted well before its end: its init may outlive what the kernel killed for a moment."""
        at = moment(seen["State"].get("FinishedAt"))
        noted = self._oom_kills.get(folder.path.name, ())
        before = [count for when, count in noted if at is not None and when < at.timestamp() - _APART_S / 2]
        if before:
            return before[-1]
        count = (folder.read("launch.json") or {}).get("oom_kills")
        return count if isinstance(count, int) else None

    def _known(self, folder: ContainerFolder, handle: Handle) -> dict[str, Any]:
        """Its address and its first process, from the handle or else from its folder."""
        known = dict(handle.ref)
        if "port" not in known:
            known |= {
                key: value for key, value in (folder.read("launch.json") or {}).items() if key in ("host", "port")
            }
        if Identity.of(known, boot_id()) is None:
            known |= folder.read("container.json") or {}
        return known

    def _network(self, folder: ContainerFolder) -> str:
        return str((folder.read("launch.json") or {}).get("network", "host"))

    def _find(self, name: str, timeout_s: float) -> dict[str, Any] | None:
        """What the daemon knows, and what it will never know: that it ended, where nobody is left to say so."""
        seen = self._daemon.find(self._container(name), timeout_s)
        first = Identity.of(self._folder(name).read("container.json"), boot_id())
        # one that was never seen here may be of a host whose processes are not
        if seen is None or first is None or lives(first) or not may_be_abandoned(seen, first):
            return seen
        # who kept it may have told of the end, and ended, since the question
        seen = self._daemon.find(self._container(name), timeout_s)
        if seen is None or not may_be_abandoned(seen, first) or not self._daemon.version(timeout_s).is_podman:
            return seen
        return abandoned(seen)

    def _settled(self, name: str, known: Mapping[str, Any], look: Look, timeout_s: float) -> dict[str, Any] | None:
        """What the daemon knows, once it knows what the kernel does: that its process ended."""
        engine = Identity.of(known, boot_id())
        while True:
            seen = self._find(name, timeout_s)
            if seen is None or not is_living(seen) or engine is None or seen["State"].get("Pid") != engine.pid:
                return seen
            if lives(engine) or not look.may_wait():
                return seen
            time.sleep(0.005)

    def _seal(self, folder: ContainerFolder) -> None:
        """Take the name, so that whoever is about to launch it starts nothing, and clear away what is half made."""
        if not folder.exists() and folder.seal():
            return
        folder.revoke()
        stop_pulling(folder)
        seen = self._daemon.find(folder.path.name)
        if seen is not None and not is_unstarted(seen):
            return  # it was faster, and is stopped as what runs is
        if seen is not None:
            # by force: a start that is under way at this moment is over before it is removed
            self._daemon.remove_unstarted(seen["Id"], force=True)
        folder.write("exit.json", {"sealed": True, "ended_at": time.time()})

    def _terminate(self, folder: ContainerFolder, seen: Mapping[str, Any]) -> None:
        """Ask it once, by the signal that its image wants. Recorded after the signal: to ask again does no harm."""
        record = folder.read("stop.json") or {}
        if record.get("asked_group"):
            return
        self._signal(seen, (seen["Config"].get("StopSignal") or "SIGTERM") if seen.get("Config") else "SIGTERM")
        # a stopped process would not hear it
        self._signal(seen, "SIGCONT")
        if folder.exists():
            folder.write("stop.json", record | {"asked_group": True})

    def _kill(self, folder: ContainerFolder, seen: Mapping[str, Any]) -> None:
        with suppress(OSError):  # a full disk or a lost folder keeps nobody alive
            folder.write("stop.json", (folder.read("stop.json") or {}) | {"killed": True})
        self._signal(seen, "SIGKILL")
        until = time.monotonic() + RECORDED_S
        while time.monotonic() < until:
            now = self._daemon.find(seen["Id"])
            if now is None or not is_living(now):
                return
            time.sleep(0.01)

    def _signal(self, seen: Mapping[str, Any], name: str) -> None:
        if is_forgotten(seen):
            self._signal_forgotten(seen, name)
            return
        if seen["State"]["Status"] == "paused":
            self._daemon.unpause(seen["Id"])
        try:
            self._daemon.kill(seen["Id"], name)
        except BackendUnavailable:
            raise
        except BackendError:
            now = self._daemon.find(seen["Id"])
            if now is not None and is_living(now):
                raise

    def _signal_forgotten(self, seen: Mapping[str, Any], name: str) -> None:
        """Its daemon passes no signal on. It can still end it, and then knows how it ended."""
        pid = seen["State"]["Pid"]
        first = stat(pid)
        if name == "SIGKILL":
            self._daemon.end(seen["Id"])
        elif first is not None:
            send(Identity(pid, first.start, boot_id()), signal.SIGCONT if name == "SIGCONT" else signal.SIGTERM)
