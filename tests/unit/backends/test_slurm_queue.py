"""Outputs of squeue and sacct, of several versions."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from workers.backends.slurm_queue import (
    COLUMNS,
    QueuedJob,
    format_of,
    read_accounting,
    read_fixed,
    read_json,
    version_of,
)

START = datetime(2026, 11, 21, 14, 45, 19, tzinfo=UTC)
COMMENT = "hostler:hostler-x-abc-1:f00d"


def line(*values: str) -> str:
    return "".join(value.ljust(width) for value, (_, width) in zip(values, COLUMNS, strict=True)).rstrip()


def fixed(state: str, code: str = "0", reason: str = "None", **more: str) -> QueuedJob:
    said = {"restarts": "0", "start": "2026-11-21T14:45:19", "host": "n1", "nodes": "n1", "comment": COMMENT} | more
    text = line(
        "17", state, said["restarts"], said["start"], said["host"], code, reason, "hostler-x-abc-1", said["comment"],
        said["nodes"],
    )  # fmt: skip
    (job,) = read_fixed(f"{text}\n")
    return job


@pytest.mark.parametrize(
    "told, version",
    [("slurm 19.05.5", (19, 5)), ("slurm-wlm 22.05.8", (22, 5)), ("slurm 24.11.0-0rc1", (24, 11)), ("", None)],
)
def test_versions(told: str, version: tuple[int, int] | None) -> None:
    assert version_of(told) == version


def test_json_is_asked_of_versions_that_filter_it() -> None:
    assert [format_of(version, None)["json"] for version in ((20, 11), (22, 5), (23, 11), (25, 5), None)] == [
        False, False, True, True, False,
    ]  # fmt: skip
    assert format_of((22, 5), "json")["json"]
    assert not format_of((24, 5), "fixed")["json"]


def test_a_running_job() -> None:
    job = fixed("RUNNING")
    assert job == QueuedJob(
        "17", "hostler-x-abc-1", COMMENT, "RUNNING", start=START, batch_host="n1", exit_code=0, nodes="n1"
    )
    assert not job.over


def test_what_is_not_said_is_nothing() -> None:
    job = fixed("PENDING", reason="Resources", start="N/A", host="", nodes="", comment="(null)")
    assert (job.start, job.batch_host, job.nodes, job.comment, job.why) == (None, "", "", "", "Resources")


@pytest.mark.parametrize(
    "code, wanted",
    # up to 20.11 the status as wait() knows it, later CODE:SIGNAL
    [
        ("768", (3, None)),
        ("9", (None, 9)),
        ("0", (0, None)),
        ("3:0", (3, None)),
        ("0:15", (None, 15)),
        ("", (None, None)),
    ],
)
def test_exit_codes(code: str, wanted: tuple[int | None, int | None]) -> None:
    job = fixed("FAILED", code)
    assert (job.exit_code, job.signal) == wanted
    assert job.over


@pytest.mark.parametrize("state", ["COMPLETING", "CANCELLED,COMPLETING", "COMPLETING,CANCELLED"])
def test_a_job_that_is_being_cleared_is_not_over(state: str) -> None:
    job = fixed(state)
    assert job.completing
    assert not job.over


def test_a_requeued_job_waits_again() -> None:
    assert fixed("REQUEUED", restarts="2").state == "PENDING"
    assert fixed("REQUEUE_HOLD").state == "PENDING"
    assert fixed("PENDING", restarts="2").restarts == 2


def test_lines_of_others_and_cut_ones_do_not_confuse() -> None:
    assert read_fixed("") == []
    assert read_fixed("\n\n") == []
    assert read_fixed("slurm_load_jobs error: Unable to contact slurm controller\n") == []
    array = line("17_3", "RUNNING", "0", "N/A", "n1", "0", "None", "x", "", "n1")
    assert read_fixed(array) == []
    accents = line("5", "RUNNING", "0", "N/A", "n1", "0", "None", "job-é✓"[:5], "", "n[1-2]")
    assert read_fixed(accents.replace("job-é", "job-é"))[0].id == "5"


#: One job as JSON of each generation: 0.0.37 of 21.08, 0.0.38 of 22.05, 0.0.39 of 23.02, 0.0.40 of 23.11 and later.
GENERATIONS: dict[str, dict[str, Any]] = {
    "21.08": {"job_state": "RUNNING", "start_time": 1795272319, "exit_code": 0, "restart_cnt": 0, "batch_host": "n1"},
    "22.05": {"job_state": "RUNNING", "start_time": 1795272319, "exit_code": 0, "restart_cnt": 0, "batch_host": "n1"},
    "23.02": {
        "job_state": "RUNNING", "start_time": 1795272319, "restart_cnt": 0, "batch_host": "n1",
        "exit_code": {"status": "SUCCESS", "return_code": 0},
    },
    "23.11": {
        "job_state": ["RUNNING"], "start_time": {"set": True, "infinite": False, "number": 1795272319},
        "restart_cnt": 0, "batch_host": "n1",
        "exit_code": {
            "status": ["SUCCESS"], "return_code": {"set": True, "infinite": False, "number": 0},
            "signal": {"id": {"set": False, "infinite": False, "number": 0}, "name": ""},
        },
    },
}  # fmt: skip


@pytest.mark.parametrize("version", GENERATIONS)
def test_json_of_every_generation_says_the_same(version: str) -> None:
    common = {"job_id": 17, "name": "hostler-x-abc-1", "comment": COMMENT, "state_reason": "None", "nodes": "n1"}
    (job,) = read_json(json.loads(json.dumps([common | GENERATIONS[version]])))
    assert job == fixed("RUNNING")


def test_json_of_a_cancelled_and_a_waiting_job() -> None:
    unset = {"set": False, "infinite": False, "number": 0}
    killed = {"return_code": unset, "signal": {"id": {"set": True, "infinite": False, "number": 9}, "name": "KILL"}}
    cancelled, waiting = read_json(
        [
            {"job_id": 1, "job_state": ["CANCELLED", "COMPLETING"], "start_time": unset, "exit_code": killed},
            {"job_id": 2, "job_state": ["PENDING"], "start_time": unset, "state_reason": "Priority"},
        ]
    )
    assert (cancelled.state, cancelled.completing, cancelled.signal, cancelled.over) == ("CANCELLED", True, 9, False)
    assert (waiting.state, waiting.why, waiting.start) == ("PENDING", "Priority", None)


def test_accounting_gives_the_last_run() -> None:
    text = (
        "17|PREEMPTED|0:0|2026-11-21T14:00:00|hostler-x-abc-1\n"
        "17|CANCELLED by 1000|0:15|2026-11-21T14:45:19|hostler-x-abc-1\n"
        "17.batch|CANCELLED|0:15|2026-11-21T14:45:19|batch\n"
        "Slurm accounting storage is disabled\n"
    )
    found = read_accounting(text)
    assert list(found) == ["17"]
    assert (found["17"].state, found["17"].signal, found["17"].over) == ("CANCELLED", 15, True)
