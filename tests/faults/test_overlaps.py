"""Stop while launching, launch while stopping, cancel while both; a worker killed between submit and save."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.errors import Conflict
from app.usecases import tasks
from app.usecases.restarts import request_restart
from tests.faults.stepper import POOL
from tests.faults.steppers import Steppers
from tests.support.crew import Crew

LAUNCH = "workers.backends.process:ProcessBackend.launch"


def test_a_worker_killed_between_submit_and_save(crew: Crew, steppers: Steppers) -> None:
    """Trap 2: the engine runs and no row says so; it is found by its name, and adopted."""
    killed = steppers.fork("launch", call=[LAUNCH, "after"], signal=signal.SIGKILL)
    killed.await_ended()
    assert killed.result == {}, "it came further than it should"
    replica = killed.replica
    [engine] = crew.engines(replica)
    crew.await_ready(replica)
    assert (crew.engines(replica), crew.starts(replica)) == ([engine], 1)
    [task] = crew.tasks(replica)
    assert (task.state, task.claims) == ("succeeded", 2), crew.story(replica)
    crew.end(replica)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_stop_while_the_launcher_is_at_the_launch_itself(crew: Crew, steppers: Steppers, when: str) -> None:
    """It thaws after everything was put away: it starts nothing, and what it started is gone."""
    frozen = steppers.fork("launch", call=[LAUNCH, when], signal=signal.SIGSTOP)
    frozen.await_frozen()
    replica = frozen.replica
    assert len(crew.engines(replica)) == (when == "after")
    if when == "after":
        # the stop must meet an engine, not an interpreter that has yet to become one
        crew.await_that(lambda: crew.starts(replica) == 1, "the engine's own word that it runs", replica_id=replica)
    stop = crew.stop_replica(replica)
    row = crew.await_released(replica)
    frozen.thaw()
    frozen.await_ended()
    assert crew.replica(replica) == row, "an ended replica was written to"
    assert crew.engines(replica) == []
    assert crew.starts(replica) == (when == "after")
    assert (row.state, row.reason) == ("stopped", "cancelled")
    states = {task.kind: task.state for task in crew.tasks(replica)}
    assert states == {"create": "cancelled", "stop": "succeeded"}
    assert crew.await_task(stop.task_id).state == "succeeded"


def test_a_launch_while_stopping_waits_for_the_end(crew: Crew) -> None:
    """A restart during a stop is refused until the old engine is gone; then one runs, of the next attempt."""
    replica = crew.create(pool=POOL, mock={"ignore_sigterm": True})
    crew.await_ready(replica)
    [old] = crew.engines(replica)
    stop = crew.stop_replica(replica, grace_s=60)
    crew.await_state(replica, "stopping")
    with pytest.raises(Conflict) as refused:
        request_restart(crew.ctx, crew.actor, replica)
    assert refused.value.extra["task_id"] == stop.task_id
    assert crew.engines(replica) == [old]
    crew.stop_replica(replica, force=True)
    crew.await_released(replica)
    request_restart(crew.ctx, crew.actor, replica)
    assert crew.await_ready(replica).attempt == 2
    assert (crew.starts(replica, 1), crew.starts(replica, 2), len(crew.engines(replica))) == (1, 1, 1)
    crew.end(replica)


def test_a_stop_while_a_restart_puts_the_old_one_away(crew: Crew) -> None:
    replica = crew.create(pool=POOL, mock={"ignore_sigterm": True})
    crew.await_ready(replica)
    restart = request_restart(crew.ctx, crew.actor, replica)
    crew.await_state(replica, "stopping")
    crew.stop_replica(replica, force=True)
    assert crew.await_released(replica).state == "stopped"
    assert crew.await_task(restart.task_id).state == "cancelled"
    assert (crew.starts(replica, 1), crew.starts(replica, 2), crew.engines(replica)) == (1, 0, [])


def test_stop_cancel_and_restart_at_one_instant_while_it_launches(crew: Crew) -> None:
    """Whoever wins, the rows, the tasks and the processes say the same in the end."""
    replicas = [crew.create(pool=POOL, mock={"startup_s": 0.2}) for _ in range(8)]
    asked = []
    with ThreadPoolExecutor(24) as pool:
        for replica in replicas:
            [create] = crew.tasks(replica)
            asked += [
                pool.submit(crew.stop_replica, replica),
                pool.submit(tasks.request_cancel, crew.ctx, crew.actor, create.id),
                pool.submit(request_restart, crew.ctx, crew.actor, replica),
            ]
        answers = [one.exception() for one in asked]
    assert {type(one) for one in answers} <= {type(None), Conflict}
    for replica in replicas:
        crew.await_that(lambda replica=replica: _is_settled(crew, replica), "its end or its service", 30, replica)
        story, row = crew.story(replica), crew.replica(replica)
        launched = [number for number in range(1, row.attempt + 1) if crew.starts(replica, number)]
        assert all(crew.starts(replica, number) == 1 for number in launched), story
        assert len(crew.engines(replica)) == (row.state == "ready"), story
        kinds = [task.kind for task in crew.tasks(replica) if task.state == "succeeded"]
        assert (kinds[-1] == "stop") == (row.state == "stopped"), story
    crew.end(*(replica for replica in replicas if crew.replica(replica).state == "ready"))


def _is_settled(crew: Crew, replica: str) -> bool:
    row = crew.replica(replica)
    open_tasks = [task for task in crew.tasks(replica) if task.finished_at is None]
    return not open_tasks and (row.released_at is not None or row.state == "ready")
