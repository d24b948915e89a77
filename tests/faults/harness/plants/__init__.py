"""Bugs that can be planted into the product's processes, to show that the checker finds them.

``HOSTLER_FAULT_PLANT=NAME`` loads ``tests.faults.harness.plants.NAME`` in every process of the stack; its ``PATCHES``
map ``module:dotted.name`` to a function that takes the original and returns what stands in for it. They are applied
the moment that module was loaded, before anything else can take the name from it (see ``injection.py``).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

#: plant -> the CI seed that is known to catch it
PLANTS: dict[str, int] = {
    "ring_before_commit": 1,
    "no_fencing": 4,
    "launch_before_adopt": 5,
    "apply_unguarded": 6,
    "pid_without_start_time": 15,
    "serial_event_order": 2,
    "confirmed_too_soon": 4,
    "slots_given_twice": 4,
    "keys_for_ever": 1,
    "keys_for_all_models": 3,
    "replace_unreachable": 9,
    "reconcile_unlocked": 1,
    "gang_in_parts": 5,
}
#: plant -> the seed of other places that is known to catch it
PLACE_PLANTS: dict[str, int] = {
    "slurm_adopts_nothing": 1001,
    "far_silence_is_death": 1130,
    "log_begins_at_chunk": 1002,
    "one_gpu_for_all": 1003,
    "secrets_are_kept": 1001,
    "tunnel_left_open": 1004,
    "volumes_stay": 1001,
}


def into_a_new_folder(
    folder_of: Callable[[Any, str], Path], before: Callable[[Path], None] = lambda _: None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Around the ``launch`` of a backend whose attempts' folders stand against a second one: what stands there is moved
    away, as if each launch had a folder of its own. ``before`` that is waited for what it asks."""

    def around(original: Callable[..., Any]) -> Callable[..., Any]:
        def launch_anew(backend: Any, launch: Any, *more: Any, **named: Any) -> Any:
            folder = folder_of(backend, launch.name)
            if folder.exists():
                before(folder)
                os.rename(folder, folder.with_name(f".was-{launch.name}-{uuid4().hex[:8]}"))
            return original(backend, launch, *more, **named)

        return launch_anew

    return around
