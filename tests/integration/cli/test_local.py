"""What the command line does without asking, or before asking: completion, and writing a model file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from hostler.cli import cli
from tests.integration.cli.conftest import Run
from tests.integration.cli.stub import Answer, Stub


def complete(words: list[str], begun: str) -> list[str]:
    return [item.value for item in BashComplete(cli, {}, "hostler", "_HOSTLER_COMPLETE").get_completions(words, begun)]


@pytest.mark.parametrize("verb", ["get", "stop", "logs", "wait", "explain", "delete", "restart"])
def test_ids_are_completed_from_the_server(stub: Stub, run: Run, verb: str) -> None:
    rows = [{"replica_id": "a1"}, {"replica_id": "b2"}]
    stub.on("GET", "/api/v1/replicas", Answer(body={"replicas": rows}))
    assert complete(["replica", verb], "a") == ["a1"]


def test_options_before_the_name_reach_completion(stub: Stub, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOSTLER_URL")
    stub.on("GET", "/api/v1/pools", Answer(body={"pools": [{"name": "local"}]}))
    assert complete(["--url", stub.url, "pool", "get"], "") == ["local"]


def test_make_tiny_writes_a_model_that_only_its_owner_reads(run: Run, tmp_path: Path) -> None:
    result = run("model", "make-tiny", "small")
    path = tmp_path / "state" / "models" / "small.gguf"
    assert result.stdout == f"{path}\n"
    assert path.read_bytes()[:4] == b"GGUF"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["small.gguf"]
    # again is no error: the file is replaced whole
    assert run("model", "make-tiny", "small").exit_code == 0


def test_make_tiny_follows_the_models_folder(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTLER_MODELS_DIR", str(tmp_path / "m"))
    run("model", "make-tiny")
    assert (tmp_path / "m" / "tiny.gguf").exists()


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "", "x" * 200, "a\nb"])
def test_make_tiny_takes_names_not_paths(run: Run, name: str) -> None:
    assert run("model", "make-tiny", name).exit_code == 2


def test_make_tiny_where_nothing_can_be_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert run("model", "make-tiny", "--models-dir", str(tmp_path / "file")).exit_code == 1
