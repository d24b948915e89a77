"""What a daemon is told to make of a launch: the body of ``POST /containers/create``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from app.domain.mounts import is_safe
from app.domain.path_maps import map_path
from app.domain.placeholders import put_address
from workers.backends.base import Launch, LaunchRefused
from workers.backends.docker_options import Mount, mounts_of
from workers.backends.proc import MARK

#: Labels by which containers are found again.
ATTEMPT, REPLICA, FOLDER = "hostler.attempt", "hostler.replica", "hostler.folder"
#: Where an engine listens in a network of its own: only the published port leads there.
_EVERYWHERE = "0.0.0.0"
#: Of the host's folders of ours those that engines keep things in.
_KEPT = ("cache", r"data/(?!\.\.?(?![A-Za-z0-9._-]))[A-Za-z0-9._-]+")


def container_config(
    launch: Launch,
    *,
    image: str,
    image_env: Mapping[str, str],
    home: Path,
    state_dir: Path,
    user: str,
    log_bytes: int,
    is_podman: bool,
) -> dict[str, Any]:
    """``home`` is mounted under its own path: ``{folder}`` means the same inside and outside.

    Raises LaunchRefused for mounts that are not allowed.
    """
    options = launch.options
    network = options.get("network", "host")
    argv = inside(launch, home)
    environ = environment(launch, home, image_env)
    mounts = [
        *mounts_of(options, state_dir),
        *kept_folders([*argv, *environ.values(), *launch.files.values()], state_dir),
    ]
    config: dict[str, Any] = {
        "Image": image,
        # argv as it is: what the image would start by itself does not count
        "Entrypoint": [argv[0]],
        "Cmd": argv[1:],
        "Env": [f"{name}={value}" for name, value in environ.items()],
        "User": user,
        "WorkingDir": str(home),
        "Labels": {
            ATTEMPT: launch.name,
            REPLICA: launch.replica_id,
            FOLDER: str(home.parent.parent),
        },
        # Hostler asks by itself
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            "NetworkMode": network,
            "Init": options.get("init", True),
            # Hostler heals
            "RestartPolicy": {"Name": "no"},
            "AutoRemove": False,
            "SecurityOpt": ["no-new-privileges"],
            "Mounts": [_bind(Mount(str(home), str(home), read_only=False)), *(_bind(mount) for mount in mounts)],
            "LogConfig": _log_config(log_bytes, is_podman),
            **_limits(options),
            **_gpus(launch),
        },
    }
    if network != "host" and launch.port is not None:
        exposed = f"{launch.port}/tcp"
        config["ExposedPorts"] = {exposed: {}}
        config["HostConfig"]["PortBindings"] = {exposed: [{"HostIp": launch.host, "HostPort": str(launch.port)}]}
    return config


def inside(launch: Launch, home: Path) -> list[str]:
    """The arguments as they are given to the program inside."""
    path_map = launch.options.get("path_map", {})
    return [map_path(with_address(item.replace("{folder}", str(home)), launch), path_map) for item in launch.argv]


def environment(launch: Launch, home: Path, image_env: Mapping[str, str]) -> dict[str, str]:
    """What the engine finds beside what its image sets; nothing comes from the worker's own."""
    path_map = launch.options.get("path_map", {})
    environ = {"HOME": str(home), "LANG": "C.UTF-8"}
    environ |= {
        name: map_path(with_address(value.replace("{folder}", str(home)), launch), path_map)
        for name, value in launch.env.items()
    }
    if "PATH" in environ:
        environ["PATH"] = environ["PATH"].replace("{path}", image_env.get("PATH", ""))
    # the lease decides, not the wish. Inside, the leased ones are all there are, and numbered anew
    environ["CUDA_VISIBLE_DEVICES"] = ",".join(str(place) for place, _ in enumerate(launch.gpus))
    environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    # images of NVIDIA's ask for all of them, and a daemon whose default runtime is NVIDIA's would give them
    by_driver = launch.gpus and launch.options.get("gpu_requests", "nvidia") == "nvidia"
    environ["NVIDIA_VISIBLE_DEVICES"] = ",".join(map(str, launch.gpus)) if by_driver else "void"
    environ[MARK] = launch.name
    return environ


def kept_folders(words: Iterable[str], state_dir: Path) -> list[Mount]:
    """The stack's own folders that these words name: for downloads, and for what a store keeps. Nothing else of it."""
    pattern = re.compile(rf"{re.escape(str(state_dir))}/({'|'.join(_KEPT)})(?![A-Za-z0-9._-])")
    found = sorted({match.group(0) for word in words for match in pattern.finditer(word)})
    return [Mount(path, path, read_only=False) for path in found]


def with_address(content: str, launch: Launch) -> str:
    """``content`` with the address in it at which the engine listens, as it sees it itself."""
    if launch.port is None:
        return content
    host = launch.host if launch.options.get("network", "host") == "host" else _EVERYWHERE
    return put_address(content, host, launch.port)


def _bind(mount: Mount) -> dict[str, Any]:
    for path in (mount.source, mount.target):
        if not is_safe(path):
            raise LaunchRefused(f"{path!r} cannot be mounted: a daemon would read more than a path in it")
    return {"Type": "bind", "Source": mount.source, "Target": mount.target, "ReadOnly": mount.read_only}


def strayed_mount(asked: Iterable[Mapping[str, Any]], seen: Mapping[str, Any]) -> str:
    """What a daemon made of the mounts of a container otherwise than it was asked to; empty: nothing."""
    made = {one.get("Destination"): one for one in seen.get("Mounts") or ()}
    for mount in asked:
        one = made.get(mount["Target"])
        if one is None:
            return f"nothing is mounted at {mount['Target']!r}"
        if os.path.realpath(str(one.get("Source"))) != os.path.realpath(mount["Source"]):
            return f"{one.get('Source')!r} is mounted at {mount['Target']!r}, not {mount['Source']!r}"
        if mount["ReadOnly"] and one.get("RW") is not False:
            return f"{mount['Target']!r} may be written"
    return ""


def _log_config(log_bytes: int, is_podman: bool) -> dict[str, Any]:
    if is_podman:
        # it drops all of a file that grew too large, and has no second one
        return {"Type": "k8s-file", "Config": {"max-size": str(log_bytes)}}
    return {"Type": "json-file", "Config": {"max-size": str(log_bytes // 2), "max-file": "2"}}


def _limits(options: Mapping[str, Any]) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    if "memory_bytes" in options:
        limits |= {"Memory": options["memory_bytes"], "MemorySwap": options["memory_bytes"]}
    if "cpus" in options:
        limits["NanoCpus"] = int(options["cpus"] * 1e9)
    if "pids" in options:
        limits["PidsLimit"] = options["pids"]
    if "shm_bytes" in options:
        limits["ShmSize"] = options["shm_bytes"]
    return limits


def _gpus(launch: Launch) -> dict[str, Any]:
    if not launch.gpus:
        return {}
    if launch.options.get("gpu_requests", "nvidia") == "cdi":
        request: dict[str, Any] = {"Driver": "cdi", "DeviceIDs": [f"nvidia.com/gpu={gpu}" for gpu in launch.gpus]}
    else:
        ids = [str(gpu) for gpu in launch.gpus]
        request = {"Driver": "nvidia", "DeviceIDs": ids, "Capabilities": [["gpu", "compute", "utility"]]}
    return {"DeviceRequests": [request]}
