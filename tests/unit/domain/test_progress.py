"""Busy, idle, broken or hung: one story per row, told look by look."""

from __future__ import annotations

import pytest

from app.domain.progress import FAILURES_ALONE, LOOKS, Answer, Progress, Reading

FAILED = Answer(False, "no answer in time")
IDLE = Reading(3, 100)


def _suspect(before: Reading | None = IDLE, after: Reading | None = IDLE) -> Progress:
    return Progress(last=before).after_answer(before, after, FAILED)


def _looks(known: Progress, *readings: Reading | None, has_counters: bool = True) -> Progress:
    for reading in readings:
        known = known.after_look(reading, has_counters=has_counters)
    return known


def test_hung_needs_a_failed_deep_probe_and_so_many_looks_without_a_change() -> None:
    known = _suspect()
    for _ in range(LOOKS - 1):
        known = _looks(known, IDLE)
        assert not known.hung
    known = _looks(known, IDLE)
    assert "no answer in time" in known.hung
    assert f"{LOOKS} looks" in known.hung
    assert "3 and 100" in known.hung


@pytest.mark.parametrize("moved", [Reading(4, 100), Reading(3, 101), Reading(0, 0)], ids=["finished", "token", "anew"])
def test_any_counter_that_moves_is_work(moved: Reading) -> None:
    known = _looks(_suspect(), IDLE, moved, moved, moved, moved)
    assert not known.hung
    assert not known.suspect


def test_tokens_made_while_the_deep_probe_waited_are_work() -> None:
    assert not _suspect(IDLE, Reading(3, 105)).suspect


def test_an_answer_is_work_whatever_the_counters_say() -> None:
    assert not _suspect().after_answer(IDLE, IDLE, Answer(True)).suspect


def test_a_refusal_says_nothing() -> None:
    assert not Progress(last=IDLE).after_answer(IDLE, IDLE, Answer(None, "HTTP 404")).suspect


def test_counters_that_do_not_answer_are_no_progress() -> None:
    known = _looks(_suspect(None, None), *[None] * LOOKS)
    assert "did not answer" in known.hung


def test_without_counters_only_deep_probes_in_a_row_tell() -> None:
    known = Progress()
    for turn in range(1, FAILURES_ALONE + 1):
        known = known.after_answer(None, None, FAILED)
        known = _looks(known, *[None] * (2 * LOOKS), has_counters=False)
        assert bool(known.hung) == (turn == FAILURES_ALONE)


def test_what_is_hung_stays_so_until_it_works_and_says_why_once() -> None:
    hung = _looks(_suspect(), *[IDLE] * LOOKS)
    assert _looks(hung, *[IDLE] * LOOKS).hung == hung.hung
    assert not _looks(hung, Reading(3, 101)).hung
    assert not hung.after_answer(IDLE, IDLE, Answer(True)).hung
    # as the next agent finds it
    recalled = Progress(failure=hung.hung, hung=hung.hung)
    assert _looks(recalled, *[IDLE] * LOOKS).hung == hung.hung
    assert not _looks(recalled, IDLE, Reading(3, 101)).hung


def test_finished_requests_spare_the_deep_probe() -> None:
    known = Progress(last=IDLE)
    assert known.worked(Reading(4, 130))
    assert not known.worked(Reading(3, 130))
    assert not known.worked(None)
    assert not Progress().worked(IDLE)
