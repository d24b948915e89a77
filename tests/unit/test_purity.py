"""What import-linter cannot say: the domain and what runs beside engines use the standard library only."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOMAIN = sorted((ROOT / "app" / "domain").rglob("*.py"))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            yield node.module or ""


@pytest.mark.parametrize("path", DOMAIN, ids=lambda path: path.stem)
def test_the_domain_imports_the_standard_library_and_itself(path: Path) -> None:
    for name in _imports(path):
        assert name.split(".")[0] in sys.stdlib_module_names or name.startswith("app.domain"), name


@pytest.mark.parametrize("path", DOMAIN, ids=lambda path: path.stem)
def test_the_domain_does_not_look_outside(path: Path) -> None:
    outside = {"socket", "subprocess", "threading", "os", "time", "http", "urllib", "asyncio", "random", "secrets"}
    assert not outside & {name.split(".")[0] for name in _imports(path)}


def test_the_shim_needs_nothing_but_python() -> None:
    # it is started with -I -S beside every engine: whatever it imported would be paid per replica
    for name in _imports(ROOT / "workers" / "backends" / "shim.py"):
        assert name.split(".")[0] in sys.stdlib_module_names, name


def test_no_module_is_a_dump_of_helpers() -> None:
    found = [path for top in ("app", "workers", "hostler") for path in (ROOT / top).rglob("*.py")]
    assert [path for path in found if path.stem in ("utils", "util", "helpers", "common", "misc")] == []


def test_settings_are_read_from_the_environment_in_one_place() -> None:
    """Only the client, which has no settings of a server, reads some HOSTLER_* itself."""
    allowed = {"app/settings/__init__.py", "hostler/connection.py"}
    marks = {"HOSTLER_ROLE", "HOSTLER_MARK"}  # what a process is, set by whoever starts it; nothing a user sets
    for top in ("app", "workers"):
        for path in (ROOT / top).rglob("*.py"):
            name = str(path.relative_to(ROOT))
            if name in allowed or "/programs/" in name:
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                is_read = (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in ("getenv", "get")
                    and "environ" in ast.unparse(node.func)
                )
                words = [arg.value for arg in node.args if isinstance(arg, ast.Constant)] if is_read else []
                read = {str(word) for word in words if str(word).startswith("HOSTLER_")}
                assert read <= marks, f"{name}:{node.lineno}"
