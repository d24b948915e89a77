"""The tail of two files is the tail of what was written."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.backends import output
from workers.backends.output import read_output, read_part


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "BLOCK_BYTES", 7)


@given(
    text=st.text(alphabet="ab\n", max_size=80),
    cut=st.integers(0, 80),
    tail=st.none() | st.integers(0, 20),
)
def test_tail(tmp_path_factory: pytest.TempPathFactory, text: str, cut: int, tail: int | None) -> None:
    folder = tmp_path_factory.mktemp("out")
    (folder / "log.1").write_text(text[:cut])
    (folder / "log").write_text(text[cut:])
    lines = text.split("\n")[:-1] if text.endswith("\n") or not text else text.split("\n")
    wanted = lines if tail is None else lines[max(0, len(lines) - tail) :]
    assert list(read_output(folder, tail)) == wanted


def test_without_files_there_are_no_lines(tmp_path: Path) -> None:
    assert list(read_output(tmp_path, None)) == []
    assert list(read_output(tmp_path / "none", 5)) == []


def test_a_rotation_between_the_two_opens_doubles_nothing(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("one\ntwo\n")
    (tmp_path / "log.1").hardlink_to(tmp_path / "log")
    assert list(read_output(tmp_path, None)) == ["one", "two"]


def test_bytes_that_are_no_text_are_shown_as_such(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"\xff\xfe ok\r\nlast")
    assert list(read_output(tmp_path, None)) == ["\ufffd\ufffd ok", "last"]


def test_a_place_is_not_taken_for_one_in_another_file_with_its_number(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"old words\n")
    place = read_part(tmp_path, "", 100).place
    # what a rotated file leaves behind is its number, which the next one may get
    log.write_bytes(b"new words, more of them\n")
    part = read_part(tmp_path, place, 100)
    assert (part.data, part.gap) == (b"new words, more of them\n", True)


def test_parts_go_over_from_the_rotated_file_to_the_new_one(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"one\ntwo\n")
    first = read_part(tmp_path, "", 5)
    assert (first.data, first.gap) == (b"one\nt", False)
    log.rename(tmp_path / "log.1")
    assert read_part(tmp_path, first.place, 100).data == b"wo\n"
    log.write_bytes(b"")
    rest = read_part(tmp_path, first.place, 100)
    assert rest.data == b"wo\n"
    log.write_bytes(b"three\n")
    assert read_part(tmp_path, rest.place, 100).data == b"three\n"
    assert read_part(tmp_path, first.place, 5).data == b"wo\nth"
