"""Tasks, priorities, modes and what a replica asks of its place."""

from __future__ import annotations

import pytest

from app.domain import tasks
from app.domain.modes import ENGINE_BY_MODE, ServerMode, accepts_any_model, engine_for
from app.domain.placement import gpus_wanted
from app.domain.tasks import Phase, TaskKind, TaskState


def test_states_are_open_or_ended_and_progress_only_grows() -> None:
    assert {*tasks.OPEN, *tasks.ENDED} == set(TaskState)
    assert set(tasks.PROGRESS) == set(Phase)
    launch = [Phase.QUEUED, Phase.CLAIMED, Phase.LAUNCHING, Phase.WAITING_FOR_READY, Phase.DIAGNOSING, Phase.DONE]
    assert [tasks.PROGRESS[phase] for phase in launch] == sorted({tasks.PROGRESS[phase] for phase in launch})


def test_stops_and_probes_overtake_and_nothing_long_does() -> None:
    assert [kind for kind in TaskKind if tasks.is_control(kind)] == [TaskKind.STOP, TaskKind.HEALTH]
    assert set(tasks.LAUNCH_KINDS) < set(tasks.LIFECYCLE_KINDS)
    assert tasks.DEFAULT_PRIORITY in tasks.PRIORITIES
    assert list(tasks.PRIORITIES.values()) == [0, 1, 2, 3]


def test_every_mode_has_its_engine() -> None:
    assert set(ENGINE_BY_MODE) == set(ServerMode)
    for mode in ServerMode:
        assert accepts_any_model(mode) == mode.endswith("_mock")
        assert engine_for(mode, "llama-cpp") == ("mock" if mode.endswith("_mock") else "llama-cpp")
    assert engine_for(ServerMode.PLATFORM_WORKLOAD, None, {"command": ["x"]}) == "command"
    assert engine_for(ServerMode.PLATFORM_WORKLOAD, "llama-cpp", {}) == "llama-cpp"
    assert engine_for(ServerMode.REPLICA, None, {"command": ["x"]}) is None


@pytest.mark.parametrize(
    "resources, gpus",
    [({}, 0), ({"gpus": 2}, 2), ({"gpu": "4"}, 4), ({"gpu": None}, 0), ({"gpus": 1, "gpu": 3}, 1), (None, 0)],
)
def test_gpus_wanted(resources: dict[str, object] | None, gpus: int) -> None:
    assert gpus_wanted({"resources": resources}) == gpus
