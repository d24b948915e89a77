"""Trap 13, the pure part: when many fall silent, and when one does."""

from __future__ import annotations

from workers.suspicion import LEAST, ROUNDS, Doubt, Suspicion

ROUND_S = 5.0


def noted(silent: int, heard: int, now: float = 0.0) -> Suspicion:
    suspicion = Suspicion(ROUND_S)
    _note(suspicion, silent, heard, now)
    return suspicion


def _note(suspicion: Suspicion, silent: int, heard: int, now: float) -> None:
    for number in range(silent + heard):
        suspicion.note("p", str(number), silent=number < silent, now=now)


def test_few_or_half_are_judged_one_by_one() -> None:
    assert noted(LEAST - 1, 0).doubt("p", 0) is Doubt.NONE
    assert noted(4, 4).doubt("p", 0) is Doubt.NONE
    assert Suspicion(ROUND_S).doubt("p", 0) is Doubt.NONE


def test_most_are_suspect_once_then_held_then_outlasted() -> None:
    suspicion = noted(5, 4)
    assert suspicion.doubt("p", 0) is Doubt.BEGINS
    assert suspicion.doubt("p", 0) is Doubt.HOLDS
    assert suspicion.counts("p", 0) == (5, 9)
    for turn in range(1, ROUNDS + 1):
        _note(suspicion, 5, 4, turn * ROUND_S)
    assert suspicion.doubt("p", ROUNDS * ROUND_S - 0.1) is Doubt.HOLDS
    assert suspicion.doubt("p", ROUNDS * ROUND_S) is Doubt.OUTLASTED


def test_it_ends_when_they_answer_and_may_begin_again() -> None:
    suspicion = noted(5, 0)
    assert suspicion.doubt("p", 0) is Doubt.BEGINS
    _note(suspicion, 0, 5, 1)
    assert suspicion.doubt("p", 1) is Doubt.NONE
    _note(suspicion, 5, 0, 2)
    assert suspicion.doubt("p", 2) is Doubt.BEGINS


def test_what_was_not_looked_at_lately_is_no_evidence() -> None:
    suspicion = noted(5, 0)
    assert suspicion.counts("p", 2 * ROUND_S) == (5, 5)
    assert suspicion.counts("p", 2 * ROUND_S + 0.1) == (0, 0)
    slow = Suspicion(ROUND_S, slack_s=3)
    _note(slow, 5, 0, 0)
    assert slow.counts("p", 2 * ROUND_S + 2.9) == (5, 5)


def test_what_ended_is_no_evidence() -> None:
    suspicion = noted(LEAST, 0)
    suspicion.forget("p", "0")
    suspicion.forget("nowhere", "0")
    assert suspicion.doubt("p", 0) is Doubt.NONE


def test_one_is_confirmed_when_it_was_silent_for_a_round() -> None:
    suspicion = noted(1, 3)
    assert not suspicion.is_confirmed("p", "0", ROUND_S - 0.1)
    assert suspicion.is_confirmed("p", "0", ROUND_S)
    assert not suspicion.is_confirmed("p", "1", 100)
    suspicion.note("p", "0", silent=False, now=6)
    suspicion.note("p", "0", silent=True, now=7)
    assert not suspicion.is_confirmed("p", "0", 8)


def test_pools_are_told_apart() -> None:
    suspicion = noted(5, 0)
    suspicion.note("other", "x", silent=True, now=0)
    assert suspicion.doubt("other", 0) is Doubt.NONE
    assert suspicion.doubt("p", 0) is Doubt.BEGINS
