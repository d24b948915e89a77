"""``explain`` on real rows: a case per state, brought about by the same steps that workers take, without any worker."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from app.db.engine import Database
from app.db.repos.replicas import Move
from app.domain.lifecycle import Reason, State
from app.settings import Settings
from app.usecases import ends, launch_claims, launches, pools, presence, watching
from app.usecases.context import Actor, Context
from app.usecases.creates import request_create
from app.usecases.ends import End
from app.usecases.explain import explain
from app.usecases.launch_claims import LaunchClaim
from app.usecases.presence import NodeFacts
from app.usecases.restarts import request_restart
from app.usecases.stops import request_stop
from tests.support.embedded import fresh_database

HANDLE = {"backend": "mock", "name": "x", "ref": {}}


class Stage:
    """A stack whose workers are this test."""

    def __init__(self, ctx: Context, actor: Actor) -> None:
        self.ctx, self.actor = ctx, actor
        self.pool = f"p{secrets.token_hex(4)}"
        pools.create(ctx, actor, {"name": self.pool, "backend": "process", "slots": 1})
        self.heard()

    def heard(self) -> None:
        presence.heartbeat_worker(self.ctx, f"n/worker/{self.pool}", "worker", 1, [f"pool.{self.pool}"], 1)

    def created(self, **body: Any) -> str:
        whole = {"server_mode": "replica_mock", "model_name": "m", "pool": self.pool, **body}
        return request_create(self.ctx, self.actor, whole).replica_id

    def claimed(self) -> LaunchClaim:
        claim = launch_claims.claim_launch(self.ctx, pool=self.pool, worker="n/worker/1/1.0")
        assert claim is not None
        return claim

    def launching(self) -> LaunchClaim:
        claim = self.claimed()
        assert launches.record_launching(self.ctx, claim, may_queue=False)
        return replace(claim, state=State.STARTING)

    def waiting(self) -> LaunchClaim:
        claim = self.launching()
        assert launches.record_launched(self.ctx, claim, HANDLE, leave=False)
        return replace(claim, state=State.WAITING_FOR_READY)

    def ready(self) -> LaunchClaim:
        claim = self.waiting()
        assert launches.record_ready(self.ctx, claim, HANDLE, None, State.WAITING_FOR_READY)
        return claim

    def move(self, claim: LaunchClaim, *path: State, **more: Any) -> None:
        move = Move(claim.replica_id, claim.attempt, path, cause="test", **more)
        assert watching.record_sweep_moves(self.ctx, [move])

    def change(self, statement: str, **values: Any) -> None:
        with self.ctx.database.begin() as connection:
            connection.execute(text(statement), values)


def pending(stage: Stage) -> str:
    return stage.created()


def pool_full(stage: Stage) -> str:
    stage.created()
    stage.ready()
    stage.created()
    return stage.created()


def pool_draining(stage: Stage) -> str:
    pools.set_state(stage.ctx, stage.actor, stage.pool, "draining")
    return stage.created()


def no_worker(stage: Stage) -> str:
    stage.change("DELETE FROM workers WHERE :pool = ANY(queues)", pool=f"pool.{stage.pool}")
    return stage.created()


def no_gpu(stage: Stage) -> str:
    return stage.created(resources={"gpus": 99})


def no_pool_gpu(stage: Stage) -> str:
    pools.update(stage.ctx, stage.actor, stage.pool, {"gpus": 0})
    return stage.created(resources={"gpus": 1})


def behind(stage: Stage) -> str:
    stage.created()
    return stage.created()


def scheduling(stage: Stage) -> str:
    replica = stage.created()
    stage.claimed()
    return replica


def launcher_lost(stage: Stage) -> str:
    replica = stage.created()
    launches.give_back(stage.ctx, stage.claimed(), 60)
    return replica


def host_silent(stage: Stage) -> str:
    replica = launcher_lost(stage)
    with stage.ctx.database.begin() as connection:
        connection.execute(text("UPDATE nodes SET heartbeat_at = hostler_now() - interval '9 seconds'"))
    return replica


def launch_retried(stage: Stage) -> str:
    replica = stage.created()
    claim = stage.claimed()
    watching.record_trouble(stage.ctx, replica, "no route to gpu1")
    # its time has come, and nobody has taken it yet
    launches.give_back(stage.ctx, claim, 0)
    return replica


def preparing(stage: Stage) -> str:
    replica = stage.created()
    claim = stage.claimed()
    stage.move(claim, State.SCHEDULING, State.PREPARING)
    return replica


def launching(stage: Stage) -> str:
    replica = stage.created()
    stage.launching()
    return replica


def starting(stage: Stage) -> str:
    replica = stage.created()
    launches.record_handle(stage.ctx, stage.launching(), HANDLE)
    return replica


def waiting_for_ready(stage: Stage) -> str:
    replica = stage.created(timeouts={"readiness_timeout_s": 77})
    stage.waiting()
    return replica


def ready(stage: Stage) -> str:
    replica = stage.created(job={"job_timeout_s": 3600})
    stage.ready()
    return replica


def probes_failing(stage: Stage) -> str:
    replica = stage.created()
    claim = stage.ready()
    watching.record_facts(stage.ctx, [watching.Fact(replica, claim.attempt, 2, {"healthy": False})])
    return replica


def unhealthy(stage: Stage) -> str:
    replica = stage.created()
    stage.move(stage.ready(), State.READY, State.UNHEALTHY, reason=Reason.HEALTH_FAILED, message="status 500")
    return replica


def unreachable(stage: Stage) -> str:
    replica = stage.created()
    stage.move(stage.ready(), State.READY, State.UNREACHABLE, message="no route")
    return replica


def stopping(stage: Stage) -> str:
    replica = stage.created()
    stage.ready()
    request_stop(stage.ctx, stage.actor, replica)
    return replica


def restarting(stage: Stage) -> str:
    replica = stage.created()
    stage.ready()
    request_restart(stage.ctx, stage.actor, replica)
    return replica


def stopped(stage: Stage) -> str:
    replica = stopping(stage)
    assert ends.record_gone(stage.ctx, replica, 1)
    return replica


def cancelled(stage: Stage) -> str:
    replica = stage.created()
    request_stop(stage.ctx, stage.actor, replica)
    return replica


def failed(stage: Stage) -> str:
    replica = stage.created()
    stage.waiting()
    end = End(Reason.PROCESS_EXITED, "exited with code 4", exit_code=4, gone=True)
    assert ends.record_failed(stage.ctx, replica, 1, State.WAITING_FOR_READY, end)
    return replica


def cleanup_pending(stage: Stage) -> str:
    replica = stage.created()
    stage.ready()
    assert ends.record_failed(stage.ctx, replica, 1, State.READY, End(Reason.PROCESS_EXITED, "leader died"))
    return replica


#: case -> (state, rule, words of the message, start of the command)
CASES: dict[Callable[[Stage], str], tuple[str, str, str, str]] = {
    pending: ("pending", "queued", "number 1", "hostler task get"),
    pool_full: ("pending", "pool_full", "number 2", "hostler replica list --pool"),
    pool_draining: ("pending", "pool_draining", "starts nothing", "hostler pool resume"),
    no_worker: ("pending", "no_worker", "No worker", "hostler doctor"),
    no_gpu: ("pending", "no_gpu", "wants 99 GPUs", "hostler node list"),
    no_pool_gpu: ("pending", "no_gpu", "wants 1 GPUs and 0", "hostler node list"),
    behind: ("pending", "behind", "number 2", "hostler replica explain"),
    scheduling: ("scheduling", "launching", "holds it", "hostler replica events"),
    launcher_lost: ("scheduling", "launcher_lost", "takes it over", "hostler task get"),
    host_silent: ("scheduling", "host_silent", "was not heard of for 9 s", "hostler node get n"),
    launch_retried: ("scheduling", "launch_retried", "no route to gpu1. It is tried again", "hostler task get"),
    preparing: ("preparing", "launching", "preparing", "hostler replica events"),
    launching: ("starting", "launching", "launching", "hostler replica events"),
    starting: ("starting", "starting", "not seen alive yet", "hostler replica logs"),
    waiting_for_ready: ("waiting_for_ready", "waiting_for_ready", "on port", "hostler replica logs"),
    ready: ("ready", "ready", "answers", "hostler replica get"),
    probes_failing: ("ready", "probes_failing", "last 2 probes", "hostler replica health"),
    unhealthy: ("unhealthy", "probes_failed", "status 500", "hostler replica restart"),
    unreachable: ("unreachable", "backend_silent", "no route", "hostler node get"),
    stopping: ("stopping", "stopping", "not seen gone", "hostler replica stop"),
    restarting: ("stopping", "restarting", "next one queues", "hostler replica events"),
    stopped: ("stopped", "stopped", "nothing of it is held", "hostler replica restart"),
    cancelled: ("stopped", "stopped", "cancelled", "hostler replica restart"),
    failed: ("failed", "failed_process_exited", "code 4", "hostler replica logs"),
    cleanup_pending: ("failed", "cleanup_pending", "keeps killing", "hostler replica stop"),
}


@pytest.fixture(scope="module")
def ctx(parts: Settings, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    state: Path = tmp_path_factory.mktemp("explain")
    with fresh_database(parts, migrated) as url:
        settings = replace(parts, state_dir=state, database_url=url, namespace=state.name, node_name="n")
        context = Context(settings, Database(url))
        presence.register_node(context, NodeFacts(1, 1, [{"index": 0}], "boot", "test"))
        yield context
        context.close()


@pytest.fixture
def stage(ctx: Context) -> Stage:
    actor = Actor(secrets.token_hex(6), f"tester-{secrets.token_hex(3)}", "admin")
    presence.heartbeat_node(ctx, "boot", canary_sent=False)
    with ctx.database.begin() as connection:
        connection.execute(
            text("INSERT INTO keys (id, name, hash, prefix, role) VALUES (:id, :name, :hash, 'x', 'admin')"),
            {"id": actor.key_id, "name": actor.name, "hash": secrets.token_hex(32).upper()},
        )
    return Stage(ctx, actor)


@pytest.mark.parametrize("case", list(CASES), ids=lambda case: case.__name__)
def test_explain(stage: Stage, case: Callable[[Stage], str]) -> None:
    state, rule, words, command = CASES[case]
    replica = case(stage)
    found = explain(stage.ctx, replica)
    assert (found["replica_id"], found["status"], found["rule"]) == (replica, state, rule)
    assert words in found["message"]
    assert found["command"].startswith(command)
    assert found["since"]
    assert found["evidence"][0]["event_id"], "it can be looked up"
    assert (found["position"] is not None) == (state == "pending")


def test_every_state_has_a_case() -> None:
    assert {expected[0] for expected in CASES.values()} == {str(state) for state in State}


def test_deadlines_are_told(stage: Stage) -> None:
    waiting = explain(stage.ctx, waiting_for_ready(stage))
    assert waiting["deadline"] > waiting["since"]
    queued = explain(stage.ctx, stage.created(timeouts={"queue_timeout_s": 60}))
    assert queued["deadline"] > queued["since"]


def test_the_lifetime_is_the_deadline_of_what_is_ready(stage: Stage) -> None:
    assert explain(stage.ctx, ready(stage))["deadline"] is not None


def test_evidence_names_rows_that_can_be_looked_up(stage: Stage) -> None:
    replica = scheduling(stage)
    what = {item["what"]: item for item in explain(stage.ctx, replica)["evidence"]}
    assert what["open create"]["held_by"] == "n/worker/1/1.0"
    assert what["open create"]["lease_until"]
    assert what["attempt 1"]["name"] == f"hostler-{stage.ctx.namespace}-{replica}-1"
