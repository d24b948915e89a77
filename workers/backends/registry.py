"""Every backend, one line each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workers.backends.base import Backend, BackendContext, BackendError
from workers.backends.docker import DockerBackend
from workers.backends.mock import MockBackend
from workers.backends.process import ProcessBackend
from workers.backends.slurm import SlurmBackend
from workers.backends.ssh import SshBackend

BACKENDS: dict[str, type[Backend]] = {
    "process": ProcessBackend,
    "mock": MockBackend,
    "ssh": SshBackend,
    "slurm": SlurmBackend,
    "docker": DockerBackend,
}


def open_backend(name: str, context: BackendContext) -> Backend:
    """An instance for this process. Raises BackendError for an unknown name."""
    return _class_of(name)(context)


def place_of(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``options`` that say where the backend runs things. Raises BackendError for an unknown name."""
    return {option: options[option] for option in _class_of(name).place_options if option in options}


def _class_of(name: str) -> type[Backend]:
    try:
        return BACKENDS[name]
    except KeyError:
        raise BackendError(f"there is no backend {name!r}; there are: {', '.join(sorted(BACKENDS))}") from None
