"""The harness in other places: a real cluster, a real sshd and a real Podman are broken, and nothing of it is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.harness.facts import PlaceFacts
from tests.faults.harness.places import CI_SEEDS, FIRST_SEED
from tests.faults.harness.places.beneath import BENEATH
from tests.faults.harness.places.beside import BREAKS_BESIDE
from tests.faults.harness.places.faults import BREAKS, STANDS_ON
from tests.faults.harness.places.parts import Parts
from tests.faults.harness.places.pools import ALL, CLUSTER, PLACES, PODMAN, SSHD
from tests.faults.harness.places.sharing import BREAKS_SHARED
from tests.faults.harness.places.worker_host import POOL
from tests.faults.harness.plants import PLACE_PLANTS
from tests.faults.harness.script import as_json, script
from tests.faults.harness_run import folder, must_find, run
from tests.support import podman, slurm
from tests.support.sampling import sampled
from tests.support.sshd import _program as sshd_program

__all__ = ["folder"]

#: plant -> the part on which it shows
_PARTS = {
    "slurm_adopts_nothing": CLUSTER,
    "far_silence_is_death": SSHD,
    "log_begins_at_chunk": SSHD,
    "one_gpu_for_all": CLUSTER,
    "secrets_are_kept": CLUSTER,
    "tunnel_left_open": SSHD,
    "volumes_stay": PODMAN,
}
_LACKS = {CLUSTER: slurm.lacks, PODMAN: podman.lacks, SSHD: lambda: "" if sshd_program() else "no sshd on this machine"}


def test_a_seed_means_the_same_script_in_every_process(folder: str) -> None:
    last = FIRST_SEED + len(BREAKS)
    done = run(f"{FIRST_SEED}-{last}", "--script", folder=folder, timeout_s=60, PYTHONHASHSEED="7")
    assert done.stdout.splitlines() == [as_json(script(seed)) for seed in range(FIRST_SEED, last + 1)], done.stderr


def test_seeds_in_a_row_use_every_pool_and_every_fault() -> None:
    steps = [step for seed in range(FIRST_SEED, FIRST_SEED + len(BREAKS)) for step in script(seed)]
    assert {step.what for step in steps} >= BREAKS.keys() | BREAKS_BESIDE.keys() | BREAKS_SHARED.keys()
    assert {step.arguments.get("pool") for step in steps} >= {*ALL, POOL}
    # drawn beside the others, by most seeds
    more = {step.what for seed in range(FIRST_SEED, FIRST_SEED + 4 * len(BENEATH)) for step in script(seed)}
    assert more >= BENEATH.keys()


def test_what_breaks_is_known_where_something_is_made_for_it() -> None:
    assert STANDS_ON.keys() <= BREAKS.keys()
    assert set(STANDS_ON.values()) <= PLACES.keys()


def test_what_the_machine_lacks_is_told_and_left_out(tmp_path: Path) -> None:
    parts = Parts(tmp_path, missing={CLUSTER: "no slurmctld", PODMAN: "no podman", SSHD: "no sshd"})
    lacks = dict.fromkeys(("queue", "login", "shared"), "no slurmctld") | dict.fromkeys(("far", "tunnelled"), "no sshd")
    assert parts.left_out() == lacks | {"pod": "no podman"}
    assert [parts.options(pool, tmp_path) for pool in ALL] == [None] * len(ALL)
    assert parts.facts("hostler-x-") == PlaceFacts("hostler-x-")
    parts.mend()
    parts.close()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_seeds_of_other_places_find_nothing(folder: str) -> None:
    """Where a part is missing its pools are left out: the stack's own, and what is asked of it, are still broken."""
    done = run(",".join(map(str, CI_SEEDS)), folder=folder, timeout_s=320)
    assert done.returncode == 0, f"{done.stdout[-20000:]}\n{done.stderr[-4000:]}"
    assert done.stdout.splitlines()[-1].startswith(f"faults: ok: {len(CI_SEEDS)} seeds in "), done.stdout[-2000:]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("plant", sampled(sorted(PLACE_PLANTS)))
def test_a_planted_bug_is_found(plant: str, folder: str) -> None:
    lacks = _LACKS[_PARTS[plant]]()
    if lacks:
        pytest.skip(lacks)
    must_find(plant, PLACE_PLANTS[plant], folder)
