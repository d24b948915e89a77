"""Bugs that can be planted into the product's processes, to show that the checker finds them.

``HOSTLER_FAULT_PLANT=NAME`` loads ``tests.faults.harness.plants.NAME`` in every process of the stack; its ``PATCHES``
map ``module:dotted.name`` to a function that takes the original and returns what stands in for it. They are applied
the moment that module was loaded, before anything else can take the name from it (see ``injection.py``).
"""

from __future__ import annotations

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
}
