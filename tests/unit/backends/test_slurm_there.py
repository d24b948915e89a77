"""What is found out on the host with Slurm's commands, of what squeue says there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from workers.backends.slurm_seats import Seats

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
