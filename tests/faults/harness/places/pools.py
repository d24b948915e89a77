"""The pools of other places: by what each is run, and what of the parts it stands on."""

from __future__ import annotations

from collections.abc import Mapping

#: Of stacks that run in other places; what is frozen there longer than a lease is so by as much more.
LEASE_S, LONGER_S = 5, 3.0
CLUSTER, SSHD, PODMAN = "cluster", "sshd", "podman"
#: pool -> backend, slots, parts without which it cannot be.
PLACES: Mapping[str, tuple[str, int, tuple[str, ...]]] = {
    "queue": ("slurm", 6, (CLUSTER,)),
    "login": ("slurm", 4, (CLUSTER, SSHD)),
    "far": ("ssh", 6, (SSHD,)),
    "tunnelled": ("ssh", 4, (SSHD,)),
    "pod": ("docker", 4, (PODMAN,)),
}
#: One whose replicas share jobs, and how many of them one. Of its own, so that it draws no script anew.
SHARED, SEATS = "shared", 2
ALL: Mapping[str, tuple[str, int, tuple[str, ...]]] = {**PLACES, SHARED: ("slurm", 6, (CLUSTER,))}
#: What it may ask the cluster for.
GPUS = 8
