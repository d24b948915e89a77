"""A stub server, and the command line run against it in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hostler.cli import cli
from tests.integration.cli.stub import Stub, serve

Run = Callable[..., Result]
KEY = "k" * 32


@pytest.fixture
def stub() -> Iterator[Stub]:
    with serve(Stub()) as served:
        yield served


@pytest.fixture
def run(stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``run("replica", "list")``: the result has stdout, stderr and exit_code."""
    for name in ("HOSTLER_URL", "HOSTLER_API_KEY", "HOSTLER_MODELS_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOSTLER_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("HOSTLER_API_KEY", KEY)
    monkeypatch.setenv("HOSTLER_URL", stub.url)

    def invoke(*words: str, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(cli, list(words), input=stdin, prog_name="hostler")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke
