"""What the program of a shared job takes for left behind."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from workers.backends import slurm_share
from workers.backends.slurm_share import Member, Share

MEMBER, ENGINE, LEFT = 100, 101, 102


class Tree:
    """Processes below us as they come: look by look, those below a member and those below nobody."""

    def __init__(self, *looks: tuple[set[int], set[int]]) -> None:
        self.looks, self.asked = list(looks), 0
        self.killed: list[int] = []

    def descendants(self, root: int = 0) -> list[int]:
        engines, left = self.looks[min(self.asked, len(self.looks) - 1)]
        self.asked += 1
        return sorted(engines - {MEMBER}) if root == MEMBER else sorted({MEMBER} | engines | left)

    def send(self, pid: int, _: int) -> None:
        self.killed.append(pid)
        self.looks = [(engines, left - {pid}) for engines, left in self.looks]


@pytest.fixture
def share() -> Share:
    made = Share({}, b"", "1", 0)
    made.members = {0: Member("a", "n", os.sep)}
    made.members[0].process = SimpleNamespace(pid=MEMBER)
    return made


def _kill_left(share: Share, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(slurm_share, "descendants", tree.descendants)
    monkeypatch.setattr(slurm_share, "send", tree.send)
    return share.kill_left()


def test_an_engine_that_begins_while_it_is_looked_is_left_alone(share: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Tree((set(), set()), ({ENGINE}, set()))
    assert _kill_left(share, tree, monkeypatch)
    assert tree.killed == []


def test_what_one_look_alone_sees_is_left_alone(share: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stood between it and its member ended in the midst of the look."""
    tree = Tree((set(), {ENGINE}), (set(), {ENGINE}), ({ENGINE}, set()))
    assert _kill_left(share, tree, monkeypatch)
    assert tree.killed == []


def test_what_a_killed_member_left_is_killed(share: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Tree(({ENGINE}, {LEFT}))
    assert _kill_left(share, tree, monkeypatch)
    assert tree.killed == [LEFT]
