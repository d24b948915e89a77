"""Other places than this host: a real Slurm cluster, a host behind a real sshd, a real Podman, and what breaks there.

Their seeds begin at ``FIRST_SEED``: no script of the others changes with them, and no run without them starts a part.
"""

from __future__ import annotations

#: Seeds from this one on run in other places.
FIRST_SEED = 1001
#: Of those the ones that CI runs.
CI_SEEDS = (1001, 1002, 1003)


def is_of_places(seed: int) -> bool:
    """Whether the script of that seed needs the parts."""
    return seed >= FIRST_SEED
