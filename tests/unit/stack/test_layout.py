from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.stack.errors import BadState, PathTooLong
from app.stack.layout import SOCKET_NAMES, SOCKET_PATH_BYTES, Layout, check_state_path, make_run_dir, run_dir


def test_sockets_lie_in_the_state_dir_where_they_fit(tmp_path: Path) -> None:
    state = Path("/tmp/s")
    assert run_dir(state) == state / "run"
    assert Layout(state).redis_socket == state / "run" / "redis.sock"


@pytest.mark.parametrize("length", range(40, 120, 7))
def test_every_socket_fits_wherever_it_lies(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    folder = run_dir(Path("/tmp/" + "ü" * (length // 2)))
    assert max(len(os.fsencode(folder / name)) for name in SOCKET_NAMES) <= SOCKET_PATH_BYTES


def test_a_long_path_uses_the_runtime_dir_and_remembers_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / ("x" * 90)
    state.mkdir()
    runtime = Path(os.path.realpath("/tmp")) / f"r{os.getpid()}"
    runtime.mkdir(mode=0o700)
    try:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        made = make_run_dir(state, os.geteuid(), os.getegid())
        assert made.parent == runtime
        assert made.stat().st_mode & 0o777 == 0o700
        monkeypatch.delenv("XDG_RUNTIME_DIR")
        assert run_dir(state) == made, "another shell must find the same sockets"
        assert make_run_dir(state, os.geteuid(), os.getegid()) == made
    finally:
        made.rmdir()
        runtime.rmdir()


def test_two_state_dirs_never_share_a_folder() -> None:
    assert run_dir(Path("/tmp/" + "a" * 90)) != run_dir(Path("/tmp/" + "a" * 89 + "b"))


def test_a_link_in_the_place_of_the_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else was first with the name, in a folder where everybody may write."""
    state, target = tmp_path / "s", tmp_path / "target"
    state.mkdir()
    target.mkdir()
    short = tmp_path / "short"
    short.symlink_to(target)
    monkeypatch.setattr("app.stack.layout._fits", lambda folder: folder == short)
    monkeypatch.setattr("app.stack.layout._short_dir", lambda _: short)
    with pytest.raises(BadState, match="XDG_RUNTIME_DIR"):
        make_run_dir(state, os.geteuid(), os.getegid())


def test_paths_that_no_part_could_use_are_refused() -> None:
    with pytest.raises(PathTooLong):
        check_state_path(Path("/" + "x" * 1000))
    with pytest.raises(BadState):
        check_state_path(Path("/tmp/a\nb"))
    check_state_path(Path("/tmp/100% ;#'\" ü"))
