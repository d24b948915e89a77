from __future__ import annotations

from hostler.cli.history import event_line, step, time_per_state


def event(second: str, state: str | None, **more: object) -> dict[str, object]:
    return {"at": f"2026-01-01T00:00:{second}Z", "kind": "transition", "to_state": state, **more}


def test_time_per_state_is_the_distance_of_the_steps() -> None:
    story = [event("00", "pending"), event("01.500", "starting"), event("01.700", None), event("02", "ready")]
    assert time_per_state(story) == [("pending", 1.5), ("starting", 0.5), ("ready", None)]
    assert time_per_state([]) == []


def test_a_step_says_from_and_to() -> None:
    assert step(event("00", "pending")) == "pending"
    assert step(event("00", "ready", from_state="starting")) == "starting -> ready"
    assert step({"kind": "pool_drained"}) == "pool_drained"


def test_a_line_holds_cause_and_actor() -> None:
    line = event_line(
        event("00", "failed", from_state="starting", reason="process_exited", message="code 1", cause="died", actor="x")
    )
    assert line.endswith("starting -> failed  (process_exited)  code 1  [died by x]")
