"""Rules that hold for every backend's file, read from the files themselves."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import workers.backends
from app.domain.abilities import OUTLIVES_LEADER, OWNS_OUTPUT, RUNS_ARGV, RUNS_BARE, SPANS_HOSTS
from workers.backends import shim
from workers.backends.base import BackendContext, BackendError, Liveness, Observation
from workers.backends.registry import BACKENDS, open_backend

FILES = sorted(Path(workers.backends.__file__).parent.glob("*.py"))


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def test_the_shim_imports_only_what_starts_at_once() -> None:
    assert imports(Path(shim.__file__)) == {"_signal", "fcntl", "os", "select", "sys", "time"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_backend_knows_no_database_no_queue_and_no_application(path: Path) -> None:
    known = imports(path)
    assert not {name for name in known if name.split(".")[0] in ("sqlalchemy", "celery", "redis", "flask")}
    assert not {name for name in known if name.startswith("app.") and not name.startswith("app.domain")}


@pytest.mark.parametrize("name", sorted(BACKENDS))
def test_a_backend_says_what_it_is(name: str, tmp_path: Path) -> None:
    backend = open_backend(name, BackendContext(state_dir=tmp_path))
    assert backend.name == name
    assert backend.summary.endswith(".")
    assert backend.lacks <= {RUNS_ARGV, RUNS_BARE, SPANS_HOSTS, OUTLIVES_LEADER, OWNS_OUTPUT}
    assert backend.options_schema["type"] == "object"
    assert list(tmp_path.iterdir()) == [], "opening one leaves no trace"


def test_process_lacks_nothing(tmp_path: Path) -> None:
    assert open_backend("process", BackendContext(state_dir=tmp_path)).lacks == frozenset()


def test_an_unknown_backend_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"'none'.*mock, process"):
        open_backend("none", BackendContext(state_dir=tmp_path))


@pytest.mark.parametrize(
    "host, port", [("n1", "x"), ("n1", 0), ("n1", 70000), ("n1", True), (5, 20000), ("n\0", 20000), ("n\n1", 20000)]
)
def test_what_can_be_no_address_is_none(host: Any, port: Any) -> None:
    """It may come from another host, and goes into the database with the addresses of all others."""
    seen = Observation(Liveness.RUNNING, host=host, port=port)
    assert (seen.host, seen.port) == (None, None)


@pytest.mark.parametrize("host, port", [("127.0.0.1", 20000), ("::1", 1), (None, 65535), ("n1", None), (None, None)])
def test_what_can_be_an_address_is_one(host: str | None, port: int | None) -> None:
    seen = Observation(Liveness.RUNNING, host=host, port=port)
    assert (seen.host, seen.port) == (host, port)
