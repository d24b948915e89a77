"""What a backend submits elsewhere for a launch, where it is a text that people read: shown by ``dry_run``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.domain.path_maps import map_path
from app.domain.slurm_script import DEFAULT_FOLDER, Job, NoDirective, render_script
from app.domain.slurm_shared import render_seat, render_shared, seats_of
from app.errors import InvalidConfig

#: What is known only once there is a replica and a launch of it.
_REPLICA, _NONCE, _SHARED = "REPLICA", "NONCE", "shared-KEY-NUMBER"


def script_of(
    backend: str, namespace: str, argv: Sequence[str], gpus: int, nodes: int, options: Mapping[str, Any]
) -> str | None:
    """The script, with words in capitals for what is not known yet; None where the backend submits none."""
    render = _SCRIPTS.get(backend)
    return render(f"hostler-{namespace}", argv, gpus, nodes, options) if render else None


def _slurm(namespace: str, argv: Sequence[str], gpus: int, nodes: int, options: Mapping[str, Any]) -> str:
    root = options.get("folder", DEFAULT_FOLDER).rstrip("/")
    path_map = options.get("path_map", {})
    argv = [map_path(word, path_map) for word in argv]
    name = f"{namespace}-{_REPLICA}-1"
    try:
        if seats_of(options) > 1:
            folder = f"{root}/.shared/{_SHARED.removeprefix('shared-')}"
            script = render_shared(f"{namespace}-{_SHARED}", _NONCE, folder, gpus, options)
            return f"{script}\n{render_seat(argv, options)}"
        return render_script(Job(name, _REPLICA, 1, _NONCE, f"{root}/{name}", argv, gpus, nodes), options)
    except NoDirective as error:
        told = f"{error}."
        raise InvalidConfig(told, errors={"replica_config.backend_options": [told]}) from error


_SCRIPTS: dict[str, Callable[[str, Sequence[str], int, int, Mapping[str, Any]], str]] = {"slurm": _slurm}
