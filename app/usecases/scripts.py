"""What a backend submits elsewhere for a launch, where it is a text that people read: shown by ``dry_run``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.domain.path_maps import map_path
from app.domain.slurm_script import Job, NoDirective, render_script
from app.errors import InvalidConfig

#: What is known only once there is a replica and a launch of it.
_REPLICA, _NONCE = "REPLICA", "NONCE"
_FOLDER = "~/.hostler/slurm"


def script_of(
    backend: str, namespace: str, argv: Sequence[str], gpus: int, nodes: int, options: Mapping[str, Any]
) -> str | None:
    """The script, with words in capitals for what is not known yet; None where the backend submits none."""
    render = _SCRIPTS.get(backend)
    return render(f"hostler-{namespace}-{_REPLICA}-1", argv, gpus, nodes, options) if render else None


def _slurm(name: str, argv: Sequence[str], gpus: int, nodes: int, options: Mapping[str, Any]) -> str:
    folder = f"{options.get('folder', _FOLDER).rstrip('/')}/{name}"
    path_map = options.get("path_map", {})
    argv = [map_path(word, path_map) for word in argv]
    try:
        return render_script(Job(name, _REPLICA, 1, _NONCE, folder, argv, gpus, nodes), options)
    except NoDirective as error:
        told = f"{error}."
        raise InvalidConfig(told, errors={"replica_config.backend_options": [told]}) from error


_SCRIPTS: dict[str, Callable[[str, Sequence[str], int, int, Mapping[str, Any]], str]] = {"slurm": _slurm}
