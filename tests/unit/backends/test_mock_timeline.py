"""What a mocked attempt is, at which moment, by its options."""

from __future__ import annotations

from typing import Any

import pytest

from workers.backends.base import Liveness
from workers.backends.mock_options import OPTIONS_SCHEMA
from workers.backends.mock_timeline import Life, draw, fails, is_unreachable, log_lines, log_part, observe

BEGIN = 1_000_000.0


def life(**options: Any) -> Life:
    return Life("hostler-x-1-1", BEGIN, options)


@pytest.mark.parametrize(
    "options, age_s, liveness, answers",
    [
        ({}, 0, Liveness.RUNNING, True),
        ({"queue_s": 5}, 4.9, Liveness.QUEUED, None),
        ({"queue_s": 5}, 5, Liveness.RUNNING, True),
        ({"ready_delay_s": 3}, 2.9, Liveness.RUNNING, False),
        ({"ready_delay_s": 3}, 3, Liveness.RUNNING, True),
        ({"queue_s": 5, "ready_delay_s": 3}, 7.9, Liveness.RUNNING, False),
        ({"queue_s": 5, "ready_delay_s": 3}, 8, Liveness.RUNNING, True),
        ({"flap_period_s": 2}, 1.9, Liveness.RUNNING, True),
        ({"flap_period_s": 2}, 2, Liveness.RUNNING, False),
        ({"flap_period_s": 2}, 4, Liveness.RUNNING, True),
        ({"flap_period_s": 2, "ready_delay_s": 1}, 2.9, Liveness.RUNNING, True),
        ({"flap_period_s": 2, "ready_delay_s": 1}, 3, Liveness.RUNNING, False),
        ({"exit_after_s": 4}, 3.9, Liveness.RUNNING, True),
        ({"exit_after_s": 4}, 4, Liveness.EXITED, None),
        ({"exit_after_s": 4, "queue_s": 1}, 4.5, Liveness.RUNNING, True),
        ({"lose_handle": "absent"}, 0, Liveness.ABSENT, None),
        ({"lose_handle": "unknown", "lose_after_s": 2}, 1.9, Liveness.RUNNING, True),
        ({"lose_handle": "unknown", "lose_after_s": 2}, 2, Liveness.UNKNOWN, None),
        ({"unreachable_after_s": 2}, 1.9, Liveness.RUNNING, True),
        ({"unreachable_after_s": 2}, 99, Liveness.UNKNOWN, None),
        ({"unreachable_after_s": 2, "unreachable_for_s": 3}, 5, Liveness.RUNNING, True),
        ({"fail_inspect": "always"}, 1, Liveness.UNKNOWN, None),
        ({"fail_inspect": 0.0}, 1, Liveness.RUNNING, True),
        ({"fail_inspect": 1.0}, 1, Liveness.UNKNOWN, None),
    ],
)
def test_moment(options: dict[str, Any], age_s: float, liveness: Liveness, answers: bool | None) -> None:
    seen = observe(life(**options), BEGIN + age_s)
    assert (seen.liveness, seen.answers) == (liveness, answers)


@pytest.mark.parametrize(
    "options, asked_s, killed_s, ends_s, code, number",
    [
        ({}, 10, None, 10, None, 15),
        ({"stop_delay_s": 3}, 10, None, 13, None, 15),
        ({"stop_delay_s": 30}, 10, 12, 12, None, 9),
        ({"queue_s": 20, "stop_delay_s": 3}, 10, None, 10, None, 15),  # cancelled while queued: at once
        ({"exit_after_s": 5, "exit_code": 2}, 10, 11, 5, 2, None),  # it had ended before it was asked
        ({"exit_after_s": 11, "exit_code": 0, "stop_delay_s": 3}, 10, None, 11, 0, None),
    ],
)
def test_ending(
    options: dict[str, Any], asked_s: float, killed_s: float | None, ends_s: float, code: int | None, number: int | None
) -> None:
    ending = Life(
        "hostler-x-1-1", BEGIN, options, asked_at=BEGIN + asked_s, killed_at=BEGIN + killed_s if killed_s else None
    )
    before, after = observe(ending, BEGIN + ends_s - 0.1), observe(ending, BEGIN + ends_s)
    assert not before.liveness.gone
    assert after.liveness is Liveness.EXITED
    assert (after.exit_code, after.signal) == (code, number)
    assert after.ended_at is not None
    assert after.ended_at.timestamp() == BEGIN + ends_s
    assert observe(ending, BEGIN + 1e6) == after


def test_chance_falls_the_same_for_the_same_seed() -> None:
    def falls(seed: int, name: str, verb: str) -> list[bool]:
        return [fails({"seed": seed, f"fail_{verb}": 0.3}, verb, name, second=second) for second in range(1000)]

    first = falls(1, "a", "inspect")
    assert first == falls(1, "a", "inspect")
    assert 200 < sum(first) < 400
    assert first != falls(2, "a", "inspect")
    assert first != falls(1, "b", "inspect")
    assert first != falls(1, "a", "stop")


def test_draw_is_spread_over_the_whole_range() -> None:
    draws = [draw("x", number) for number in range(2000)]
    assert 0 <= min(draws) < 0.01
    assert 0.99 < max(draws) < 1


def test_unreachable_is_a_span() -> None:
    away = life(unreachable_after_s=2, unreachable_for_s=3)
    assert [is_unreachable(away, BEGIN + second) for second in (1, 2, 4, 5)] == [False, True, True, False]


def test_logs_tell_the_life_in_order_and_are_bounded() -> None:
    asked = Life("hostler-x-1-1", BEGIN, {"queue_s": 1, "ready_delay_s": 2}, asked_at=BEGIN + 90)
    lines = [line.split(" ", 1)[1] for line in log_lines(asked, BEGIN + 100)]
    assert lines == [
        "mock hostler-x-1-1: launched, nothing runs",
        "mock: started",
        "mock: ready",
        "mock: alive for 1 min",
        "mock: asked to end",
        "mock: ended by signal 15, as asked",
    ]
    assert len(log_lines(asked, BEGIN)) == 1
    assert len(log_lines(life(), BEGIN + 1e6)) < 100


def test_every_knob_is_described() -> None:
    for knob, schema in OPTIONS_SCHEMA["properties"].items():
        assert schema["description"].endswith("."), knob


def test_its_log_in_parts_is_the_same_and_says_when_minutes_are_forgotten() -> None:
    for seconds, limit in ((10, 3), (200, 50), (200, 10_000)):
        place, said = "", b""
        while (part := log_part(life(ready_delay_s=0), BEGIN + seconds, place, limit)).data:
            assert not part.gap
            place, said = part.place, said + part.data
        assert said.decode().splitlines() == log_lines(life(), BEGIN + seconds)
        assert log_part(life(), BEGIN + seconds + 60, place, 1000).data.endswith(b" min\n")
    later = log_part(life(), BEGIN + 1e5, place, 10_000)
    assert later.gap
    assert later.data.decode().splitlines() == log_lines(life(), BEGIN + 1e5)
