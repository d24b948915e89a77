"""What the doctor says of who may open the state dir."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.stack.doctor import leaking


def make(path: Path, mode: int) -> Path:
    path.parent.mkdir(mode=0o700, exist_ok=True, parents=True)
    path.write_text("x")
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode, leaks", [(0o600, False), (0o644, False), (0o664, True), (0o646, True)])
def test_a_recipe_may_be_read_by_all_and_written_by_nobody_else(tmp_path: Path, mode: int, leaks: bool) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    path = make(state / "recipes" / "lab" / "own.yaml", mode)
    (state / "recipes").chmod(0o755)
    assert list(leaking(state)) == ([path] if leaks else [])
    path.parent.chmod(0o775)
    assert path.parent in list(leaking(state))


def test_all_else_is_its_owners_alone(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    # a name that begins alike is another folder
    paths = {make(state / name / "a", 0o644) for name in ("logs", "recipes-old", "recipe-secrets")}
    assert set(leaking(state)) == paths


@pytest.mark.parametrize("place", ["containers/n-1/run-0", "data/store", "cache"])
def test_what_engines_write_counts_only_where_others_may_enter(tmp_path: Path, place: str) -> None:
    state = tmp_path / "state"
    path = make(state / place / "home" / "a", 0o644)
    for folder in path.relative_to(state).parents:
        (state / folder).chmod(0o700)
    assert list(leaking(state)) == []
    (state / place).chmod(0o711)
    assert set(leaking(state)) == {state / place, path}


def test_the_records_of_a_container_are_its_owners_alone(tmp_path: Path) -> None:
    state = tmp_path / "state"
    path = make(state / "containers" / "n-1" / "launch.json", 0o644)
    for folder in path.relative_to(state).parents:
        (state / folder).chmod(0o700)
    assert list(leaking(state)) == [path]
