"""A moment of ours on another host's clock: never later there than it is here."""

from __future__ import annotations

from workers.backends.far_clock import FarClock, now_ns

#: It read 5 s at some moment between 100 s and 102 s of ours.
CLOCK = FarClock("boot", 5 * 10**9, 100 * 10**9, 102 * 10**9)


def test_a_moment_is_never_late_there_by_what_the_answer_took() -> None:
    assert CLOCK.there(102 * 10**9) == 5 * 10**9
    assert CLOCK.there(103 * 10**9) == 6 * 10**9
    assert CLOCK.there(90 * 10**9) == -7 * 10**9


def test_it_ages_from_when_it_was_asked() -> None:
    asked_ns = now_ns() - 10 * 10**9
    assert FarClock("boot", 0, asked_ns, now_ns()).age_s >= 10
