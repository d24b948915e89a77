"""What was heard of who says numbers, and the one who follows a log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults.harness import following
from tests.faults.harness.following import Follow
from tests.faults.harness.journal import Journal
from tests.faults.harness.speech import Speech, said
from tests.support.embedded import wait_until
from tests.support.handlers import Breaking, serving

ONE, OTHER = "0123abcd", "4567cdef"


def _lines(token: str, *numbers: int) -> list[str]:
    return [f"talks {token} {number}" for number in numbers]


def test_numbers_that_follow_each_other_are_one_row() -> None:
    heard = ["talks begin 0123abcd", *_lines(ONE, 0, 1, 2), "a word", *_lines(ONE, 3, 5, 5), *_lines(OTHER, 0)]
    speech = Speech.of(heard)
    assert speech.heard == [(ONE, 0, 3), (ONE, 5, 5), (ONE, 5, 5), (OTHER, 0, 0)]
    assert speech.reaches((ONE, 5))
    assert not speech.reaches((OTHER, 1))
    assert speech.reaches(None)


def test_a_note_says_how_far_it_is(tmp_path: Path) -> None:
    (tmp_path / "talks").mkdir()
    (tmp_path / "talks" / "hostler-x-a-1").write_text(f"{ONE}        12\n")
    assert said(tmp_path, "hostler-x-a-1") == (ONE, 12)
    assert said(tmp_path, "hostler-x-b-1") is None


class _Log(Breaking):
    """Three lines a stream, the fourth half-way told; and the end."""

    count = 9

    def tell(self, behind: str | None) -> None:
        begin = int(behind) + 1 if behind else 0
        for number in range(begin, min(begin + 3, self.count)):
            self._line(number, f"talks {ONE} {number}\n\n")
        if begin + 3 < self.count:
            self._line(begin + 3, f"talks {ONE}")
        else:
            self.wfile.write(b"event: log\ndata: (words)\n\nevent: end\ndata: \n\n")

    def _line(self, number: int, text: str) -> None:
        self.wfile.write(f"id: {number}\nevent: log\ndata: {text}".encode())


def test_who_follows_comes_back_and_breaks_off_himself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LINES", 1)
    journal = Journal(tmp_path)
    _Log.asked = []
    with serving(_Log) as url:
        follow = Follow(url, "key", "r", journal)
        wait_until(lambda: follow.is_over, 30, "the end")
        follow.close()
    journal.close()
    told = json.loads((tmp_path / "journal.jsonl").read_text())
    assert (told["op"], told["heard"], told["over"]) == ("followed", [[ONE, 0, 8]], True)
    assert set(told["words"]) == {"(words)"}
    assert told["streams"] == len(_Log.asked)
    assert len(_Log.asked) >= 7
