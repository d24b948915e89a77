"""Options of the docker backend: their schema, and what they say once they were read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.domain.mounts import PLAIN_PATH, is_plain, is_safe
from workers.backends.base import LaunchRefused
from workers.backends.options import LOG_BYTES_SCHEMA, PATH_MAP_SCHEMA

_PLAIN = {"type": "string", "pattern": PLAIN_PATH, "maxLength": 4096}
_MOUNT: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["source"],
    "properties": {
        "source": {**_PLAIN, "description": "A folder or file of the host."},
        "target": {**_PLAIN, "description": "Where it is inside; default: the same path."},
        "read_only": {"type": "boolean", "description": "Default true."},
    },
}
_ALLOWED: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["source"],
    "properties": {
        "source": {
            "type": "string",
            "pattern": "^/",
            "maxLength": 4096,
            "description": "A folder of the host: it and what is below may be mounted.",
        },
        "read_only": {"type": "boolean", "description": "Whether only for reading; default true."},
    },
}
#: Where Docker and Podman listen for root.
SOCKETS = ("/var/run/docker.sock", "/run/podman/podman.sock")

#: What decides where it runs, what runs, and what of the host it may use, is an administrator's.
OPTIONS_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "socket": {
            "type": "string",
            "pattern": "^(unix://)?/",
            "description": f"Socket of Docker or Podman; default: {' or '.join(SOCKETS)}.",
            "x-admin": True,
        },
        "image": {"type": "string", "minLength": 1, "maxLength": 1000, "description": "Image to run.", "x-admin": True},
        "pull": {
            "enum": ["missing", "never"],
            "description": "Whether an image that is not there is pulled (missing, the default) or refused (never).",
            "x-admin": True,
        },
        "mounts": {
            "type": "array",
            "maxItems": 64,
            "items": _MOUNT,
            "description": "What of the host is mounted; each must be below a folder of allowed_mounts.",
            "x-folders": True,
        },
        "allowed_mounts": {
            "type": "array",
            "maxItems": 64,
            "items": _ALLOWED,
            "description": "Folders of the host of which anything may be mounted; none by default.",
            "x-admin": True,
        },
        "path_map": {
            **PATH_MAP_SCHEMA,
            "description": "Paths of this host and what they are called in the image, for arguments and variables.",
        },
        "network": {
            "type": "string",
            "pattern": r"^[A-Za-z0-9][A-Za-z0-9_.-]*$(?!\n)",
            "description": "host (the default), or a network of the daemon: the leased port is published then.",
            "x-admin": True,
        },
        "user": {
            "type": "string",
            "pattern": r"^[A-Za-z0-9_.-]+(:[A-Za-z0-9_.-]+)?$(?!\n)",
            "description": "User inside; default: the worker's own uid and gid, root of a rootless daemon.",
            "x-admin": True,
        },
        "gpu_requests": {
            "enum": ["nvidia", "cdi"],
            "description": "How leased GPUs are asked for: by NVIDIA's driver (the default) or CDI (nvidia.com/gpu=N).",
            "x-admin": True,
        },
        "memory_bytes": {
            "type": "integer",
            "minimum": 6 * 1024 * 1024,
            "description": "Most memory; no swap beside it.",
            "x-admin": True,
        },
        "cpus": {"type": "number", "exclusiveMinimum": 0, "description": "CPUs' worth of time.", "x-admin": True},
        "pids": {"type": "integer", "minimum": 1, "description": "Most processes and threads.", "x-admin": True},
        "shm_bytes": {"type": "integer", "minimum": 1, "description": "Size of /dev/shm.", "x-admin": True},
        "init": {
            "type": "boolean",
            "description": "A small init runs the engine, hands on signals and buries its dead; default true.",
            "x-admin": True,
        },
        "log_bytes": LOG_BYTES_SCHEMA,
    },
}


@dataclass(frozen=True)
class Mount:
    """One folder or file of the host, seen inside at ``target``."""

    source: str
    target: str
    read_only: bool


def image_of(options: Mapping[str, Any]) -> str:
    """The image to run. Raises LaunchRefused when there is none."""
    image = options.get("image")
    if not image:
        raise LaunchRefused("no image is named; set the option image of the pool, or of the recipe")
    return str(image)


def mounts_of(options: Mapping[str, Any], state_dir: Path) -> list[Mount]:
    """What the options have mounted. Raises LaunchRefused for what is not allowed, or not there.

    Symbolic links are followed first: what counts is what would be seen inside. Nothing that holds the stack's own
    folder, or lies in it, may be: its secrets are there, and the folders by which a launch is revoked.
    """
    allowed = [(Path(one["source"]).resolve(), one.get("read_only", True)) for one in options.get("allowed_mounts", [])]
    return [_checked(mount, allowed, state_dir.resolve()) for mount in options.get("mounts", [])]


def _checked(mount: Mapping[str, Any], allowed: list[tuple[Path, bool]], state_dir: Path) -> Mount:
    named, read_only = mount["source"], mount.get("read_only", True)
    target = mount.get("target", named)
    for path in (named, target):
        if not is_plain(path):
            raise LaunchRefused(f"{path!r} may not be mounted: it is no plain absolute path")
    source = Path(named).resolve()
    if not is_safe(str(source)):
        raise LaunchRefused(f"{named} may not be mounted: it leads to {str(source)!r}, no plain path")
    if source.is_relative_to(state_dir) or state_dir.is_relative_to(source):
        raise LaunchRefused(f"{named} may not be mounted: Hostler's own files are there ({state_dir})")
    if Path(target).is_relative_to(state_dir):
        raise LaunchRefused(f"nothing may be mounted at {target}: the attempt's own folder is there")
    over = [for_reading for folder, for_reading in allowed if source.is_relative_to(folder)]
    if not over:
        raise LaunchRefused(f"{named} may not be mounted: it is below no folder of the option allowed_mounts")
    if not read_only and all(over):
        raise LaunchRefused(f"{named} may be mounted only for reading; the option allowed_mounts says so")
    if not source.exists():
        raise LaunchRefused(f"{named} cannot be mounted: there is no such file or folder on this host")
    return Mount(str(source), target, read_only)
