"""The checker stands apart: it imports nothing of the product, and knows the lifecycle that the README shows."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.harness.checker.lifecycle import FIRST, STEPS

ROOT = Path(__file__).resolve().parents[3]
HARNESS = ROOT / "tests" / "faults" / "harness"
APART = sorted(
    [
        *(HARNESS / "checker").glob("*.py"),
        *(HARNESS / "recorders").glob("*.py"),
        HARNESS / "world.py",
        HARNESS / "far_world.py",
        HARNESS / "speech.py",
    ]
)
#: What it may share with the driver: what both tell each other.
SHARED = ("facts", "checker", "recorders", "world", "far_world", "speech")


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            yield f"{node.module}.{node.names[0].name}"


@pytest.mark.parametrize("path", [*APART, HARNESS / "facts.py"], ids=lambda path: path.stem)
def test_the_checker_imports_nothing_of_the_product(path: Path) -> None:
    for name in _imports(path):
        top, *rest = name.split(".")
        assert top not in ("app", "workers", "hostler", "migrations"), f"{path.name} imports {name}"
        if top == "tests":
            assert rest[:2] == ["faults", "harness"], f"{path.name} imports {name}"
            assert rest[2] in SHARED, f"{path.name} imports {name}"


def test_every_check_is_in_the_registry() -> None:
    written = {
        node.name
        for path in (HARNESS / "checker").glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("check_")
    }
    registry = (HARNESS / "checker" / "registry.py").read_text().partition("CHECKS:")[2]
    assert written == set(re.findall(r"check_\w+", registry))


def test_its_lifecycle_is_the_one_of_the_readme() -> None:
    diagram = (ROOT / "README.md").read_text().partition("stateDiagram-v2")[2].partition("```")[0]
    drawn = {(one, other) for one, other in re.findall(r"(\S+) --> (\S+)", diagram)}
    ours = {(one, other) for one, others in STEPS.items() for other in others}
    ends = {(state, "[*]") for state in ("stopped", "failed")}
    assert drawn == ours | ends | {("[*]", FIRST)}
