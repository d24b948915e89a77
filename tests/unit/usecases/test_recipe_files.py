"""The shelf: files that come, change, break and go, and files that must not be read at all."""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.usecases.recipe_files import BUILT_IN, Known, Shelf, problems_of

GOOD = 'engine: mock\nversion: "1"\n'


class Desk:
    """A shelf over an empty folder of our own, as one process has it."""

    def __init__(self, top: Path) -> None:
        self.folder, self.copies, self.built_in = top / "recipes", top / "kept", top / "none"
        self.folder.mkdir(mode=0o755)
        self.shelf = Shelf(self.folder, self.copies, self.built_in)

    def write(self, name: str, text: str = GOOD) -> Path:
        path = self.folder / f"{name}.yaml"
        path.parent.mkdir(mode=0o755, exist_ok=True)
        draft = path.with_suffix(".draft")
        draft.write_text(text)
        draft.chmod(0o644)
        return draft.rename(path)

    def look(self, name: str = "lab/one") -> Known:
        return self.shelf.look()[name]

    def restart(self) -> None:
        self.shelf = Shelf(self.folder, self.copies, self.built_in)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def version(known: Known) -> str | None:
    return known.recipe.version if known.recipe else None


def test_what_we_bring_can_be_served(tmp_path: Path) -> None:
    found = Shelf(tmp_path / "none", tmp_path / "kept").look()
    assert {"inference/mock", "inference/llama-cpp", "inference/vllm-single-node", "inference/vllm-replicas"} <= set(
        found
    )
    assert {name: one.problems for name, one in found.items() if one.problems} == {}
    assert all(one.built_in and one.recipe and one.recipe.description for one in found.values())
    assert not (tmp_path / "kept").exists()
    assert len(list(BUILT_IN.glob("*/*.yaml"))) == len(found)


def test_files_come_change_and_go(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.usecases.recipe_files.GONE_S", 0.0)
    assert desk.shelf.look() == {}
    desk.write("lab/one")
    assert version(desk.look()) == "1"
    desk.write("lab/one", GOOD.replace("1", "2"))
    assert version(desk.look()) == "2"
    (desk.folder / "lab" / "one.yaml").unlink()
    assert desk.shelf.look() == {}
    assert not list(desk.copies.rglob("*.yaml"))


def test_a_broken_file_serves_as_it_last_was_also_after_a_restart(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.write("lab/one")
    desk.look()
    desk.write("lab/one", "engine: mokc\nparameters: {x: {type: int}}\n")
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert version(desk.look()) == "1"
        assert len(caplog.records) == 1
        assert "last good version serves" in caplog.text
        desk.restart()
        assert version(desk.look()) == "1"
        assert desk.look().problems
        desk.write("lab/one", GOOD.replace("1", "3"))
        assert (version(desk.look()), desk.look().problems) == ("3", ())
    assert "no problem any more" in caplog.text


@pytest.mark.parametrize("level", ["folder", "category", "file"])
def test_what_cannot_be_read_any_more_goes_on_serving(desk: Desk, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = desk.write("lab/one")
    desk.write("other/two")
    desk.look()
    places = {"folder": desk.folder, "category": path.parent, "file": path}
    # root may read everything, so the refusal is made here
    closed = str(places[level])

    def refusing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(place: Any, *rest: Any, **more: Any) -> Any:
            if str(place) == closed:
                raise PermissionError(errno.EACCES, "Permission denied")
            return real(place, *rest, **more)

        return call

    with monkeypatch.context() as patch:
        patch.setattr("app.usecases.recipe_files.os.listdir", refusing(os.listdir))
        patch.setattr("app.usecases.recipe_files.os.stat", refusing(os.stat))
        patch.setattr("app.usecases.inside_files.os.open", refusing(os.open))
        for _ in range(2):
            found = desk.shelf.look()
            assert version(found["lab/one"]) == "1"
            assert "Permission denied" in "".join(found["lab/one"].problems)
            assert version(found["other/two"]) == "1"
            assert bool(desk.shelf.problem) == (level == "folder")
            desk.restart()
    assert (desk.look().problems, desk.shelf.problem) == ((), "")


def test_a_folder_that_somebody_named_has_to_be_there(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "away", tmp_path / "kept", expected=True)
    shelf.look()
    assert "there is no folder" in shelf.problem
    (tmp_path / "away").mkdir()
    shelf.look()
    assert shelf.problem == ""


def test_what_was_deleted_while_nobody_looked_is_not_kept(desk: Desk) -> None:
    desk.write("lab/one")
    desk.look()
    (desk.folder / "lab" / "one.yaml").unlink()
    desk.restart()
    assert desk.shelf.look() == {}
    desk.write("lab/one", "engine: [")
    assert desk.look().recipe is None


def test_a_deleted_recipe_does_not_come_back_by_a_broken_file_of_its_name(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.usecases.recipe_files.GONE_S", 0.0)
    desk.write("lab/one")
    desk.look()
    (desk.folder / "lab" / "one.yaml").unlink()
    assert desk.shelf.look() == {}
    desk.write("lab/one", "engine: [")
    assert desk.look().recipe is None


def test_an_editor_that_deletes_before_it_writes_has_deleted_nothing(desk: Desk) -> None:
    desk.write("lab/one")
    desk.look()
    (desk.folder / "lab" / "one.yaml").unlink()
    assert desk.shelf.look() == {}
    desk.write("lab/one", "engine: mo")
    assert version(desk.look()) == "1"
    desk.write("lab/one", GOOD.replace("1", "2"))
    assert (version(desk.look()), desk.look().problems) == ("2", ())


def test_links_may_not_lead_out(desk: Desk, tmp_path: Path) -> None:
    outside = tmp_path / "outside.yaml"
    outside.write_text(GOOD)
    outside.chmod(0o644)
    inside = desk.write("lab/real")
    (desk.folder / "lab" / "one.yaml").symlink_to(outside)
    (desk.folder / "lab" / "two.yaml").symlink_to(inside)
    (desk.folder / "lab" / "gone.yaml").symlink_to(tmp_path / "nothing")
    (desk.folder / "lab" / "loop.yaml").symlink_to("loop.yaml")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.yaml").write_text(GOOD)
    (desk.folder / "away").symlink_to(tmp_path / "elsewhere")
    found = desk.shelf.look()
    assert "leads out of the folder" in found["lab/one"].problems[0]
    assert "leads out of the folder" in found["away/x"].problems[0]
    assert found["lab/two"].recipe is not None
    assert all(found[name].recipe is None for name in ("lab/one", "away/x", "lab/gone", "lab/loop"))


def test_the_folder_itself_may_be_a_link(desk: Desk, tmp_path: Path) -> None:
    desk.write("lab/one")
    (tmp_path / "link").symlink_to(desk.folder)
    assert Shelf(tmp_path / "link", desk.copies, desk.built_in).look()["lab/one"].recipe is not None


def test_what_others_may_write_is_refused(desk: Desk) -> None:
    path = desk.write("lab/one")
    for place in (path, path.parent, desk.folder):
        mode = place.stat().st_mode
        for bit in (0o020, 0o002):
            place.chmod(mode | bit)
            assert f"others may write {place}" in desk.look().problems[0]
        place.chmod(mode)
        assert desk.look().problems == ()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_belongs_to_another_user_is_refused(desk: Desk) -> None:
    path = desk.write("lab/one")
    os.chown(path, 12345, 12345)
    assert "belongs to another user (uid 12345)" in desk.look().problems[0]


def test_no_file_is_waited_for(desk: Desk) -> None:
    desk.write("lab/one")
    os.mkfifo(desk.folder / "lab" / "pipe.yaml", 0o600)
    (desk.folder / "lab" / "folder.yaml").mkdir()
    found = desk.shelf.look()
    assert found["lab/pipe"].problems == ("it is no file",)
    assert found["lab/folder"].recipe is None


def test_names_that_are_none(desk: Desk) -> None:
    for name in ("lab/Upper", "lab/a b", "lab/-x", "Lab/x", "lab/" + "x" * 64, "lab/\u2603", "lab/.hidden", ".git/x"):
        desk.write(name)
    desk.write("lab/one.v2")
    (desk.folder / "readme.yaml").write_text(GOOD)
    (desk.folder / "lab" / "notes.txt").write_text("x")
    found = desk.shelf.look()
    assert {name for name, one in found.items() if one.recipe} == {"lab/one.v2"}
    assert {name for name, one in found.items() if "is no name of a recipe" in "".join(one.problems)} == {
        "lab/Upper",
        "lab/a b",
        "lab/-x",
        "Lab/x",
        "lab/" + "x" * 64,
        "lab/\u2603",
    }


def test_ours_is_taken_over_by_theirs_also_where_theirs_is_broken(desk: Desk) -> None:
    desk.built_in.joinpath("lab").mkdir(parents=True)
    desk.built_in.joinpath("lab", "one.yaml").write_text('engine: mock\nversion: "ours"\n')
    assert version(desk.look()) == "ours"
    desk.write("lab/one")
    assert (version(desk.look()), desk.look().built_in) == ("1", False)
    desk.write("lab/one", "x")
    desk.copies.joinpath("lab", "one.yaml").unlink()
    desk.restart()
    # somebody had a reason not to serve ours
    assert desk.look().recipe is None


@pytest.mark.parametrize(
    "text,why",
    [
        ("[]", "holds no object"),
        ("", "holds no object"),
        ("version: x", "engine: is required"),
        ("engine: vlm", "engine: there is no 'vlm'"),
        ("engine: mock\nname: two", "name: is 'two'"),
        ("engine: mock\ncategory: other", "category: is 'other'"),
        ("engine: mock\nversion: 1", "version: 1 is not of type 'string'"),
        ("engine: mock\nversoin: x", "versoin: is unknown"),
        ("engine: mock\nenvironment: {A: [x]}", "environment.A"),
        ("engine: mock\nenvironment: {A=B: x}", "A=B"),
        ("engine: mock\nresources: {gpu: -1}", "resources.gpu"),
        ("engine: mock\nresources: {memory: lots}", "resources.memory"),
        ("engine: mock\npool: {name: a, labels: {b: c}}", "pool"),
        ("engine: mock\nsecrets: {A: {file: ../x}}", "secrets.A.file"),
        ("engine: mock\nsecrets: {A: {file: x}}\nenvironment: {A: y}", "secrets.A: environment"),
        ("engine: mock\nenvironment: {HOSTLER_MARK: x}", "environment.HOSTLER_MARK: names"),
        (
            "engine: mock\nenvironment: {A: x}\nparameters: {a: {type: string, environment: A}}",
            "environment.A: a parameter is set by it",
        ),
        ("engine: mock\nlabels: {service_id: x}", "labels.service_id"),
        ("engine: mock\ncommand: [x]", "brings its own program"),
        ("engine: command", "command: engine command needs it"),
        ("engine: mock\nreadiness: {path: /x}", "readiness.path: engine mock"),
        ("engine: mock\nengine_config: {mcok: {}}", "engine_config.mcok: engine mock does not know it"),
        ("engine: mock\nengine_config: {mock: {error_rate: 2}}", "engine_config.mock.error_rate"),
        ("engine: mock\nparameters: {a: {type: text}}", "parameters.a.type"),
        ("engine: mock\nparameters: {a: {default: 1}}", "parameters.a.type: is required"),
        ("engine: mock\nparameters: {a: {type: integer, default: x}}", "parameters.a.default"),
        ("engine: mock\nparameters: {a: {type: integer, default: 5, maximum: 4}}", "parameters.a.default"),
        ("engine: mock\nparameters: {a: {type: integer, default: 5, required: true}}", "parameters.a.required"),
        ("engine: mock\nparameters: {a: {type: string, pattern: '['}}", "parameters.a.pattern"),
        ("engine: mock\nparameters: {a: {type: integer, enum: [x]}}", "parameters.a.enum.0"),
        ("engine: mock\nparameters: {a: {type: integer, sets: model}}", "what sets model is a string"),
        ("engine: mock\nparameters: {a: {type: string, sets: os.system}}", "parameters.a.sets"),
        ("engine: mock\nparameters: {a: {type: string, environment: VLLM_PORT}}", "Hostler's own"),
        (
            "engine: mock\nparameters: {a: {type: string, sets: model}, b: {type: string, sets: model}}",
            "parameters.b.sets: model is that of parameters.a already",
        ),
    ],
)
def test_what_is_wrong_is_told_by_its_field(desk: Desk, text: str, why: str) -> None:
    path = desk.write("lab/one", text)
    found = desk.look()
    assert found.recipe is None
    assert any(why in problem for problem in found.problems), found.problems
    if "but the file lies at" not in found.problems[-1]:
        assert problems_of(path) == list(found.problems)


def test_all_that_is_wrong_is_told_at_once(desk: Desk) -> None:
    desk.write("lab/one", "engine: mock\nresources: {gpu: -1, cpus: 4}\nreplicas: x\n")
    assert len(desk.look().problems) == 3


def test_the_example_of_the_page_can_be_served(desk: Desk) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "recipes.md").read_text()
    [example] = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    desk.write("lab/chat", example)
    assert desk.look("lab/chat").problems == ()


def test_more_files_than_are_looked_at(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.usecases.recipe_files.MOST", 3)
    for number in range(5):
        desk.write(f"lab/r{number}")
    found = desk.shelf.look()
    assert [name for name, one in found.items() if one.recipe] == ["lab/r0", "lab/r1", "lab/r2"]
    assert "more than 3 recipes" in found["lab/r4"].problems[0]
