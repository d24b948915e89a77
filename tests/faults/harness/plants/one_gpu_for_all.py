"""Whoever shares a job of a cluster gets the first of its GPUs, and not one of his own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _first_for_all(sources: dict[Any, str]) -> dict[Any, str]:
    own = "own = given[seat * gpus : (seat + 1) * gpus]"
    assert any(own in source for source in sources.values())
    return {module: source.replace(own, "own = given[:gpus]") for module, source in sources.items()}


PATCHES: dict[str, Callable[[Any], Any]] = {"workers.backends.slurm_asking:_SOURCES": _first_for_all}
