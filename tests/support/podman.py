"""A real Podman service on this host: storage, socket and settings in a folder, mounts in a namespace of its own.

The image holds only what this Python needs of the system; the rest is mounted.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import docker
import psutil
import pytest

from tests.support.embedded import wait_until
from tests.support.ports import free_port

IMAGE = "localhost/hostler-test:latest"
ROOT = Path(__file__).resolve().parents[2]
_INITS = ("/usr/libexec/podman/catatonit", "/usr/bin/catatonit", "/usr/bin/tini", "/usr/bin/dumb-init")
_UP_S = 30
#: What mounts in its own view of the file system, seen by nobody else.
_APART = ("unshare", "--mount", "--propagation", "private")
#: Namespaces of the network and of cgroups are the host's, and limits modest: machines of CI allow no more.
_CONTAINERS = """\
[containers]
netns="host"
cgroupns="host"
default_ulimits=["nofile=1024:1024","nproc=1000:1000"]
[engine]
runtime="runc"
cgroup_manager="cgroupfs"
events_logger="file"
lock_type="file"
tmp_dir="{folder}/libpod"
init_path="{init}"
"""
#: A runtime that ends the service once it has done a step of a start, before the service writes that down.
_DEADLY_RUNTIME = """\
#!/bin/sh
{runtime} "$@"
code=$?
case " $* " in *" {step} "*) kill -9 $(cat {folder}/service.pid);; esac
exit $code
"""
_RUNTIMES = '[engine.runtimes]\nrunc=["{folder}/deadly-runc"]\n'
_STORAGE = """\
[storage]
driver="{driver}"
graphroot="{folder}/root"
runroot="{folder}/run"
"""
_REGISTRIES = """\
unqualified-search-registries = []
[[registry]]
location = "127.0.0.1:{registry_port}"
insecure = true
"""


def lacks() -> str | None:
    """Why no Podman can be started on this machine; None where it can."""
    missing = [name for name in ("podman", "runc", "conmon", "unshare") if shutil.which(name) is None]
    if missing:
        return f"there is no {', '.join(missing)} here (Debian: podman runc)"
    if _init() is None:
        return "Podman has no init here (Debian: catatonit)"
    if os.geteuid() != 0:
        return "these tests start containers as root"
    apart = subprocess.run([*_APART, "true"], capture_output=True, text=True, timeout=_UP_S, check=False)
    if apart.returncode != 0:
        return f"mounts of its own cannot be had here: {apart.stderr.strip()}"
    return None


class Podman:
    """One service. ``options`` are those of a pool whose containers can run what tests have them run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "podman.sock"
        #: a registry that listens here on loopback is believed
        self.registry_port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def options(self, *writable: Path) -> dict[str, Any]:
        """With this Python and this code mounted for reading, and ``writable`` for writing."""
        readable = sorted({sys.base_prefix, str(ROOT), sys.prefix})
        return {
            "socket": str(self.socket),
            "image": IMAGE,
            "allowed_mounts": [
                *({"source": path} for path in readable),
                *({"source": str(path), "read_only": False} for path in writable),
            ],
            "mounts": [
                *({"source": path} for path in readable),
                *({"source": str(path), "read_only": False} for path in writable),
            ],
        }

    @contextmanager
    def client(self, timeout_s: float = 30) -> Iterator[docker.APIClient]:
        client = docker.APIClient(f"unix://{self.socket}", version="auto", timeout=timeout_s)
        try:
            yield client
        finally:
            client.close()

    def start(self) -> None:
        """Start the service, with whatever is in its storage."""
        settings = {
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(self.folder / "registries.conf"),
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.folder),
        }
        command = [*_APART, "podman", "system", "service", "--time=0", f"unix://{self.socket}"]
        with (self.folder / "service.log").open("ab") as log:
            # in its folder: who was killed for want of memory leaves a file where the service was started
            self._process = subprocess.Popen(
                command, env=settings, cwd=self.folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        (self.folder / "service.pid").write_text(str(self._process.pid))
        wait_until(self._answers, _UP_S, f"Podman; see {self.folder}/service.log")

    def stop(self) -> None:
        """End the service, and not its containers."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(_UP_S)
            self._process = None
            self.socket.unlink(missing_ok=True)

    @contextmanager
    def dying_at(self, step: str) -> Iterator[None]:
        """Meanwhile that step of a container's start is the service's last act: ``create`` makes the process that waits
        to become its program, ``start`` lets it. It is up again afterwards."""
        runtime, settings = self.folder / "deadly-runc", self.folder / "containers.conf"
        runtime.write_text(_DEADLY_RUNTIME.format(runtime=shutil.which("runc"), step=step, folder=self.folder))
        runtime.chmod(0o755)
        before = settings.read_text()
        settings.write_text(before + _RUNTIMES.format(folder=self.folder))
        self.stop()
        self.start()
        try:
            yield
        finally:
            self.stop()
            settings.write_text(before)
            self.start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def names(self) -> list[str]:
        """Names of all containers that there are."""
        with self.client() as client:
            return sorted(one["Names"][0].removeprefix("/") for one in client.containers(all=True))

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "service.log").read_text()
        if not self.socket.exists():
            return False
        try:
            with self.client() as client:
                return bool(client.ping())
        except docker.errors.DockerException:
            return False


@contextmanager
def running_podman() -> Iterator[Podman]:
    """A service with the image in it; everything of it is ended, unmounted and removed."""
    folder = Path(tempfile.mkdtemp(prefix="hpod-"))
    podman = Podman(folder)
    settings = {"folder": folder, "init": _init(), "driver": "overlay", "registry_port": podman.registry_port}
    for name, content in (("containers", _CONTAINERS), ("storage", _STORAGE), ("registries", _REGISTRIES)):
        (folder / f"{name}.conf").write_text(content.format(**settings))
    (folder / ".config" / "containers").mkdir(parents=True)
    (folder / ".config" / "containers" / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    try:
        podman.start()
        with podman.client() as client:
            client.import_image_from_data(image_tar(), repository=IMAGE.rpartition(":")[0], tag="latest")
        yield podman
    finally:
        if podman._process is None:
            podman.start()
        with podman.client() as client:
            for one in client.containers(all=True):
                client.remove_container(one["Id"], force=True, v=True)
        podman.stop()
        _end_forgotten(folder)
        shutil.rmtree(folder)


def _end_forgotten(folder: Path) -> None:
    """A service that was killed while it made a container may never have written down that there is one."""
    left = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess):
            if any(word.startswith(f"{folder}/") for word in process.cmdline()):
                left += [process, *process.children(recursive=True)]
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, _UP_S)


@pytest.fixture(scope="session")
def podman() -> Iterator[Podman]:
    """A service for all tests; import it into a conftest."""
    missing = lacks()
    if missing:
        pytest.skip(missing)
    with running_podman() as service:
        yield service


@cache
def image_tar() -> bytes:
    """The shared libraries that this Python loads from outside its own folder, and the folders that a system has."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name in ("tmp", "proc", "dev", "sys", "etc", "run", "root"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        for path in sorted(_libraries()):
            tar.add(os.path.realpath(path), arcname=path.lstrip("/"))
    return made.getvalue()


def _libraries() -> set[str]:
    python = Path(os.path.realpath(sys.executable))
    modules = Path(sys.base_prefix, "lib", f"python{sys.version_info[0]}.{sys.version_info[1]}", "lib-dynload")
    wheels = Path(sys.prefix, "lib", modules.parent.name, "site-packages")
    loaded = [python, *modules.glob("*.so"), *wheels.glob("xllamacpp*/**/*.so*")]
    found = set()
    for path in loaded:
        told = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=False).stdout
        words = (word for line in told.splitlines() for word in line.split())
        found |= {word for word in words if word.startswith("/") and not word.startswith((sys.base_prefix, sys.prefix))}
    return found


def _init() -> str | None:
    return next((path for path in _INITS if os.path.exists(path)), None)
