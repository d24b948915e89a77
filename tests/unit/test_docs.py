"""The pages say what the code says: every error code, setting, state and reason, and no drift in generated parts."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from app import errors
from app.domain.lifecycle import Reason, State
from app.domain.services import Overall, Restart, Status, Update
from app.domain.tasks import Phase, TaskState
from app.settings import Settings, env_name
from docs import generate

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])


def _subclasses(top: type) -> list[type]:
    return [top, *(below for child in top.__subclasses__() for below in _subclasses(child))]


def _page(name: str) -> str:
    return (ROOT / name).read_text()


@pytest.mark.parametrize("page", generate.PAGES)
def test_generated_parts_have_not_drifted(page: str) -> None:
    text = _page(page)
    assert generate.rendered(text) == text, "run `make docs`"


def test_the_schema_of_recipes_has_not_drifted() -> None:
    assert _page(generate.RECIPE_SCHEMA) == generate.recipe_schema(), "run `make docs`"


def test_each_generated_part_is_shown_somewhere() -> None:
    shown = {name for page in generate.PAGES for name in re.findall(r"<!-- generated: ([a-z-]+) -->", _page(page))}
    assert shown == set(generate.PARTS)


@pytest.mark.parametrize("error", _subclasses(errors.HostlerError), ids=lambda error: error.code)
def test_error_codes_are_documented(error: type[errors.HostlerError]) -> None:
    assert f"| `{error.code}` | {error.status} |" in _page("docs/errors.md")
    assert (error.__doc__ or "").strip().endswith("."), "the docstring is what a user reads"


@pytest.mark.parametrize("setting", [item.name for item in fields(Settings)])
def test_settings_are_documented(setting: str) -> None:
    assert f"| `{env_name(setting)}` |" in _page("README.md")


@pytest.mark.parametrize("state", list(State))
def test_states_are_documented(state: State) -> None:
    assert f"| `{state}` |" in _page("docs/architecture.md")
    assert re.search(rf"^    \S+ --> {state}$", _page("README.md"), re.MULTILINE)


@pytest.mark.parametrize("reason", list(Reason))
def test_reasons_are_documented_with_what_to_do(reason: Reason) -> None:
    row = re.search(rf"^\| `{reason}` \|(.+)\|(.+)\|$", _page("docs/errors.md"), re.MULTILINE)
    assert row
    assert all(cell.strip() for cell in row.groups())


@pytest.mark.parametrize("word", [*TaskState, *Phase])
def test_task_states_and_phases_are_documented(word: str) -> None:
    tasks = _page("docs/errors.md").partition("## Task states")[2]
    assert re.search(rf"\b{word}\b", tasks)


@pytest.mark.parametrize("kind", [Update, Restart])
def test_the_limits_of_services_are_documented_with_their_defaults(kind: type[Update | Restart]) -> None:
    for item in fields(kind):
        default = str(item.default).lower() if isinstance(item.default, bool) else f"{item.default:g}"
        assert f"| `{item.name}` | {default} |" in _page("docs/services.md"), item.name


@pytest.mark.parametrize("word", [*Status, *Overall])
def test_the_words_of_services_are_documented(word: str) -> None:
    assert f"| `{word}` |" in _page("docs/services.md") or f"`{word}` is a replica's word" in _page("docs/services.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_decisions_are_numbered_and_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    records = sorted(path.name for path in folder.glob("0*.md"))
    assert [name[:4] for name in records] == [f"{number:04}" for number in range(1, len(records) + 1)]
    index = (folder / "README.md").read_text()
    assert [name for name in records if name not in index] == []


def test_every_make_target_explains_itself() -> None:
    makefile = _page("Makefile")
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert phony
    for target in phony[1].split():
        assert re.search(rf"^{target}:.*## \S", makefile, re.MULTILINE), target
