"""What is found out on the host with Slurm's commands, of what squeue says there."""

from __future__ import annotations

import errno
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from workers.backends.slurm_seats import Seats
from workers.backends.slurm_there import There, encode, job_restarts, submitted_job

A, B = "hostler-x-aaaaaaaaaaaa-1", "hostler-x-bbbbbbbbbbbb-1"
NONCE = {A: "a" * 32, B: "b" * 32}


class Told(Seats):
    """The host, and a queue that says ``jobs``: (id, state, name) each."""

    jobs: tuple[tuple[str, str, str], ...] = ()

    def __init__(self, request: dict[str, Any]) -> None:
        super().__init__(request)
        self.typed: list[list[str]] = []

    def run(self, words: list[str], stdin: bytes, timeout_s: float, keep: tuple[int, ...] = ()) -> tuple[int, str, str]:
        self.typed.append(words)
        return 0, "", ""

    def queue(self, names: Any, form: dict[str, Any]) -> dict[str, Any]:
        lines = (f"{job} {state} main hostler:{name}:{NONCE[name]}\n" for job, state, name in self.jobs)
        return {"ok": True, "form": "fixed", "text": "".join(lines), "message": ""}

    def look(self) -> dict[str, Any]:
        found: dict[str, Any] = self.do_look({"names": [A, B], "format": {}})["attempts"]
        return found


class Answering(There):
    """The host, on which every command says the same."""

    def __init__(self, request: dict[str, Any], said: str) -> None:
        super().__init__(request)
        self.said = said

    def run(self, words: list[str], stdin: bytes, timeout_s: float, keep: tuple[int, ...] = ()) -> tuple[int, str, str]:
        return 0, self.said, ""


@pytest.fixture
def host(tmp_path: Path) -> Told:
    """Two attempts that run, as the same job by their own words: a controller gave its id again."""
    for name in (A, B):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "launch.json").write_text(json.dumps({"name": name, "nonce": NONCE[name]}))
        for record in ("job.json", "owner.json"):
            (folder / record).write_text(json.dumps({"job_id": "20"}))
        (folder / "alive").touch()
        (folder / "private").touch()
    return Told({"folder": str(tmp_path), "timeout_s": 5})


def test_a_job_of_another_with_its_id_does_not_hide_that_it_lives(host: Told) -> None:
    host.jobs = (("20", "RUNNING", B),)
    seen = host.look()
    assert seen[A]["alive_s"] < 5
    assert "alive_s" not in seen[B], "Slurm knows its job"


def test_the_end_of_another_with_its_id_is_not_its_own(host: Told, tmp_path: Path) -> None:
    host.jobs = (("20", "COMPLETED", B),)
    host.look()
    assert not (tmp_path / A / "over.json").exists()
    assert (tmp_path / A / "private").exists()
    assert (tmp_path / B / "over.json").exists()
    assert not (tmp_path / B / "private").exists()


def test_a_stop_names_the_job_and_not_only_its_id(host: Told) -> None:
    host.jobs = (("20", "RUNNING", B),)
    for force in (False, True):
        host.do_stop({"name": A, "grace_s": 5, "force": force, "format": {}})
    asked = [words for words in host.typed if words[0] == "scancel"]
    assert len(asked) >= 3
    assert all(f"--name={A}" in words for words in asked), asked


def test_what_an_engine_wrote_into_its_folder_hides_nobody(host: Told, tmp_path: Path) -> None:
    (tmp_path / A / "exit.json").write_text("[]")
    (tmp_path / A / "log-of-today.txt").write_text("its own")
    (tmp_path / A / f"log-{0:020d}").write_text("said\n")
    host.jobs = (("20", "RUNNING", B),)
    assert host.look()[A]["there"]
    assert host.do_log({"name": A, "tail": 5, "limit": 100})["data"] == encode(b"said")
    assert host.do_tail_place({"name": A, "lines": 1}) == {"place": 0}


@pytest.mark.parametrize("full", ["blocks", "files"])
def test_a_full_disk_hinders_no_stop(host: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str) -> None:
    (tmp_path / A / "script").write_text("#!/bin/bash\n")
    host.jobs = (("20", "RUNNING", A),)
    before = set((tmp_path / A).iterdir())

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(*((json, "dump") if full == "blocks" else (tempfile, "mkstemp")), refused)

    def stop(grace_s: float) -> list[list[str]]:
        host.typed.clear()
        host.do_stop({"name": A, "grace_s": grace_s, "force": False, "format": {}})
        return [words for words in host.typed if words[0] == "scancel"]

    assert any("--signal=TERM" in words for words in stop(60))
    assert set((tmp_path / A).iterdir()) == before | {tmp_path / A / "stop.json"}
    assert "stop" in host.look()[A]
    assert not any("--signal=TERM" in words for words in stop(60)), "it was asked before"
    assert ["scancel", "--quiet", f"--name={A}", "20"] in stop(0), "the grace has passed"
    assert (tmp_path / A / "kill.json").exists()


def test_a_command_that_is_a_script_around_slurms_own_holds_up_nobody(tmp_path: Path) -> None:
    there = There({"folder": str(tmp_path), "timeout_s": 5})
    begun = time.monotonic()
    assert there.run(["/bin/sh", "-c", "sleep 4; true"], b"", 0.2) == (None, "", "")
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize("said", ["17\n", "17;cluster\n", "--- Welcome ---\n--> checking the limits...OK\n17\n\n"])
def test_a_job_is_known_by_its_id_whatever_a_site_says_around_it(said: str) -> None:
    assert submitted_job(said) == "17"


@pytest.mark.parametrize("said", ["", "Submitted\n", "job 17 of 20\n"])
def test_no_id_is_none(said: str) -> None:
    assert submitted_job(said) == ""


@pytest.mark.parametrize("said", ["{}", '{"jobs": null}', '{"jobs": [], "errors": [{"error": "Unable to contact"}]}'])
def test_half_an_answer_in_json_says_of_nobody_that_he_is_gone(tmp_path: Path, said: str) -> None:
    queue = Answering({"folder": str(tmp_path), "timeout_s": 5}, said).queue([A], {"json": True, "keys": ["job_id"]})
    assert not queue["ok"]
    assert "squeue --json" in queue["message"]


def test_an_empty_list_in_json_is_an_answer(tmp_path: Path) -> None:
    said = '{"jobs": [], "errors": [], "warnings": [{"description": "a newer version"}]}'
    queue = Answering({"folder": str(tmp_path), "timeout_s": 5}, said).queue([A], {"json": True, "keys": ["job_id"]})
    assert (queue["ok"], queue["jobs"]) == (True, [])


@pytest.mark.parametrize("said", ["The scheduler is busy, try later\n", "\n  Maintenance until 17:00\n"])
def test_words_in_the_place_of_a_list_say_of_nobody_that_he_is_gone(tmp_path: Path, said: str) -> None:
    queue = Answering({"folder": str(tmp_path), "timeout_s": 5}, said).queue([A], {"json": False, "fields": "x"})
    assert not queue["ok"]
    assert said.strip() in queue["message"]


@pytest.mark.parametrize("said", ["", "\n", "17   RUNNING  0\n", "A notice\n17   RUNNING  0\n"])
def test_a_list_is_one_with_a_notice_too(tmp_path: Path, said: str) -> None:
    assert Answering({"folder": str(tmp_path), "timeout_s": 5}, said).queue([A], {"json": False, "fields": "x"})["ok"]


@pytest.mark.parametrize(
    "queue",
    [
        {"form": "fixed", "text": "7   RUNNING   2   2026-01-01T00:00:00   node1\n8 PENDING 0 N/A\nnoise\n"},
        {"form": "json", "text": "", "jobs": [{"job_id": 7, "restart_cnt": 2}, {"job_id": 8}]},
        {"form": "json", "text": "", "jobs": [{"job_id": 7, "restart_cnt": {"set": True, "number": 2}}, {"job_id": 8}]},
    ],
)
def test_how_often_a_job_was_run_again(queue: dict[str, Any]) -> None:
    assert job_restarts(queue) == {"7": 2, "8": 0}


@pytest.mark.parametrize(
    "record, written",
    [
        ("run.json", {"restarts": 0, "host": 5, "port": 20000}),
        ("run.json", {"restarts": 0, "host": "n1", "port": "x"}),
        ("run.json", {"restarts": 0, "host": "n1", "port": 70000}),
        ("run.json", {"restarts": 0, "host": "n1", "port": 20000, "started_at": 1e300}),
        ("exit.json", {"restarts": "0", "own": True}),
        ("exit.json", {"restarts": 0, "own": True, "left": 0, "exit_code": 2**40}),
        ("owner.json", {"job_id": ["20"]}),
        ("term.json", {"restarts": True}),
        ("exit.json", [1]),
    ],
)
def test_a_record_that_no_program_of_ours_wrote_is_none(host: Told, tmp_path: Path, record: str, written: Any) -> None:
    """Else one attempt's folder could keep all others of its place from being looked at."""
    (tmp_path / A / record).write_text(json.dumps(written))
    host.jobs = (("20", "RUNNING", A),)
    seen = host.look()
    assert record.partition(".")[0] not in seen[A]
    assert seen[A]["ended_before"] is None
    assert seen[B]["there"]


def test_records_of_ours_are_believed(host: Told, tmp_path: Path) -> None:
    run = {"job_id": "20", "restarts": 1, "host": "n1", "port": 20000, "pid": 9, "started_at": 1.8e9, "owns_port": None}
    ended = {**run, "exit_code": None, "signal": 9, "oom": False, "left": 0, "own": True, "ended_at": 1.8e9}
    for record, written in (("run.json", run), ("exit.json", ended)):
        (tmp_path / A / record).write_text(json.dumps(written))
    seen = host.look()[A]
    assert (seen["run"], seen["exit"], seen["ended_before"]) == (run, ended, 1)
