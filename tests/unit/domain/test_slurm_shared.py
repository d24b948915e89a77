"""What a job for several replicas asks for, and who may share it."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.slurm_script import NoDirective
from app.domain.slurm_shared import key_of, limit_s, render_seat, render_shared, whole


def test_the_job_asks_for_what_all_its_seats_need() -> None:
    script = render_shared("n", "f00d", "/f", 2, {"replicas_per_job": 4, "cpus": 3, "memory": "10G"})
    assert {"#SBATCH --cpus-per-task=12", "#SBATCH --mem=40G", "#SBATCH --gres=gpu:8", "#SBATCH --nodes=1"} <= set(
        script.splitlines()
    )
    assert "4 seats of 2 GPUs each" in script
    assert "--gres" not in render_shared("n", "f00d", "/f", 0, {"replicas_per_job": 4})


def test_all_of_the_memory_stays_all_of_it() -> None:
    assert whole({"replicas_per_job": 4, "memory": "0"})["memory"] == "0"
    assert whole({"replicas_per_job": 4, "gres": "gpu:a:2"})["gres"] == "gpu:a:2", "the whole job's"


def test_values_are_quoted_and_end_no_line() -> None:
    script = render_shared("n", "f00d", "/a b", 0, {"replicas_per_job": 2, "setup": ["module load x"]})
    assert "cd -- '/a b' || exit 1\nmodule load x\n" in script
    with pytest.raises(NoDirective):
        render_shared("n", "f00d", "/f", 0, {"replicas_per_job": 2, "account": "a\n#SBATCH --uid=0"})


def test_what_runs_on_a_seat_is_shown_as_people_read_it() -> None:
    shown = render_seat(["serve", "--port", "80", "a b"], {"apptainer": {"image": "/i.sif", "nv": True}})
    assert "apptainer exec" in shown
    assert "--port 80 'a b'" in shown


SAME: dict[str, Any] = {"replicas_per_job": 4, "account": "a", "cpus": 2}


@pytest.mark.parametrize(
    "namespace, service, options, gpus",
    [
        ("hostler-y", "s", SAME, 1),
        ("hostler-x", "t", SAME, 1),
        ("hostler-x", "s", SAME, 2),
        ("hostler-x", "s", {**SAME, "account": "b"}, 1),
        ("hostler-x", "s", {**SAME, "replicas_per_job": 2}, 1),
        ("hostler-x", "s", {**SAME, "setup": ["module load x"]}, 1),
        ("hostler-x", "s", {**SAME, "extra": ["--mail-type=END"]}, 1),
        ("hostler-x", "s", {**SAME, "time_limit": 5}, 1),
    ],
)
def test_others_have_another_key(namespace: str, service: str, options: dict[str, Any], gpus: int) -> None:
    assert key_of(namespace, service, options, gpus) != key_of("hostler-x", "s", SAME, 1)


def test_what_is_each_attempts_own_does_not_part_them() -> None:
    more = {**SAME, "log_bytes": 4096, "path": "/bin", "passes": ["X"], "ports": [20000, 20001]}
    assert key_of("hostler-x", "s", more, 1) == key_of("hostler-x", "s", SAME, 1)


@pytest.mark.parametrize(
    "said, seconds",
    [
        (None, None), ("UNLIMITED", None), (90, 5400), ("90", 5400), ("2:30", 150), ("1:30:00", 5400),
        ("1-12", 129600), ("1-12:30", 131400), ("1-12:30:05", 131405),
    ],
)  # fmt: skip
def test_time_limits_in_seconds(said: Any, seconds: int | None) -> None:
    assert limit_s({"time_limit": said} if said is not None else {}) == seconds


@pytest.mark.parametrize("said", ["0", "0-0", "0:00", "UNLIMITED", None])
def test_no_limit_is_none_however_it_is_said(said: str | None) -> None:
    assert limit_s({"time_limit": said}) is None
