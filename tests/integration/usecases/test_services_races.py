"""Several at once at the same services: reconcilers, users, workers. Each step is taken once, and nobody deadlocks."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from app.domain.lifecycle import LAUNCHING, Reason
from app.errors import Conflict, HostlerError
from app.usecases import reconciling, replicas, services
from app.usecases.context import Actor, Context, Idempotency
from tests.support.services import Hands, change, create

ROUNDS = 8
AT_ONCE = 4


def at_once(*acts: Callable[[], Any]) -> list[Any]:
    """All begin at the same moment; what they return or were refused with."""
    barrier = threading.Barrier(len(acts))

    def run(act: Callable[[], Any]) -> Any:
        barrier.wait()
        try:
            return act()
        except HostlerError as refused:
            return refused

    with ThreadPoolExecutor(len(acts)) as threads:
        return list(threads.map(run, acts))


def test_reconcilers_at_once_replace_each_dead_one_once(ctx: Context, actor: Actor, hands: Hands) -> None:
    made = [create(ctx, actor, 3, restart={"stable_s": 0}).service_id for _ in range(5)]
    for service in made:
        hands.settle(service)
    for _ in range(ROUNDS):
        dead = {service: hands.live(service)[0].id for service in made}
        for replica in dead.values():
            hands.fail(replica)
        at_once(*[lambda: reconciling.sweep(ctx)] * AT_ONCE)
        # what one left to another, because that one was at it, is done by the next sweep
        reconciling.sweep(ctx)
        for service, replica in dead.items():
            assert [row.replaces for row in hands.replicas(service)].count(replica) == 1
            assert len(hands.live(service)) == 3
            hands.make_ready(*(row.id for row in hands.live(service) if row.state in LAUNCHING))
        reconciling.sweep(ctx)


def test_the_same_create_at_once_makes_one_service(ctx: Context, actor: Actor, hands: Hands) -> None:
    for number in range(ROUNDS):
        key = Idempotency(f"k{number}", "POST", "/api/v1/services", "hash")
        found = at_once(*[lambda key=key: create(ctx, actor, 2, idempotency=key)] * AT_ONCE)
        ids = {one.service_id for one in found if not isinstance(one, HostlerError)}
        assert len(ids) == 1, found
        assert len(hands.replicas(ids.pop())) == 2
    assert services.page(ctx, {}, 100, None)[1] == ROUNDS


def test_of_creates_at_once_one_gets_the_name(ctx: Context, actor: Actor) -> None:
    for number in range(ROUNDS):
        found = at_once(*[lambda number=number: create(ctx, actor, 1, name=f"n{number}")] * AT_ONCE)
        assert sorted(isinstance(one, Conflict) for one in found) == [False] + [True] * (AT_ONCE - 1)


def test_a_cancel_wins_over_whatever_comes_with_it(ctx: Context, actor: Actor, hands: Hands) -> None:
    for _ in range(ROUNDS):
        service = create(ctx, actor, 3).service_id
        first = hands.live(service)[0].id
        found = at_once(
            lambda service=service: services.cancel(ctx, actor, service),
            lambda service=service: services.scale(ctx, actor, service, 6),
            lambda service=service: change(ctx, actor, service, body={"model_name": "n"}),
            lambda first=first: replicas.request_stop(ctx, actor, first),
            lambda: reconciling.sweep(ctx),
        )
        assert all(not isinstance(one, HostlerError) or isinstance(one, Conflict) for one in found), found
        hands.settle(service)
        assert hands.live(service) == []
        shown = services.get(ctx, service)
        assert (shown["status"], shown["cleanup"]) == ("cancelled", None)
        open_tasks = "SELECT id FROM tasks WHERE arguments->>'service_id' = :id AND finished_at IS NULL"
        with ctx.database.read() as connection:
            assert list(connection.execute(text(open_tasks), {"id": service})) == []


@pytest.mark.parametrize("seed", range(6))
def test_any_mixture_comes_to_what_was_asked_last(ctx: Context, actor: Actor, hands: Hands, seed: int) -> None:
    """Users, reconcilers and workers in any order: when it comes to rest there is what is wanted, and no more."""
    chosen = random.Random(seed)
    restart = {"tries": 50, "backoff_s": 0, "stable_s": 0}
    service = create(ctx, actor, 2, restart=restart).service_id

    def one(act: str) -> Callable[[], Any]:
        count, model = chosen.randint(0, 5), f"m{chosen.randint(0, 3)}"
        live = [row.id for row in hands.live(service)] or ["0" * 12]
        victim = chosen.choice(live)
        acts: dict[str, Callable[[], Any]] = {
            "scale": lambda: services.scale(ctx, actor, service, count),
            "update": lambda: change(ctx, actor, service, body={"model_name": model}, restart=restart),
            "rollback": lambda: services.rollback(ctx, actor, service),
            "pause": lambda: services.pause(ctx, actor, service),
            "resume": lambda: services.resume(ctx, actor, service),
            "stop": lambda: replicas.request_stop(ctx, actor, victim),
            "restart": lambda: replicas.request_restart(ctx, actor, victim),
            "sweep": lambda: reconciling.sweep(ctx),
        }
        return acts[act]

    names = ["scale", "update", "rollback", "pause", "resume", "stop", "restart", "sweep"]
    for _ in range(6):
        found = at_once(*(one(chosen.choice(names)) for _ in range(AT_ONCE)), lambda: reconciling.sweep(ctx))
        # who collided six times in a row is told to try again
        refused = [answer for answer in found if isinstance(answer, HostlerError) and not answer.retryable]
        assert {answer.status for answer in refused} <= {404, 409}, refused
        ready = [row.id for row in hands.replicas(service) if row.state in LAUNCHING]
        for replica in chosen.sample(ready, len(ready) // 2):
            hands.make_ready(replica)
        serving = hands.replicas(service, "ready")
        if serving and chosen.random() < 0.5:
            hands.fail(chosen.choice(serving).id, Reason.PROCESS_EXITED)
    services.resume(ctx, actor, service)
    hands.settle(service, rounds=60)

    shown = services.get(ctx, service)
    live = hands.live(service)
    assert len(live) == shown["count"]
    assert {row.revision for row in live} <= {shown["revision"]}
    assert len({row.ordinal for row in live}) == len(live)
    assert shown["plan"]["settled"], shown
    with ctx.database.read() as connection:
        open_tasks = list(connection.execute(text("SELECT kind FROM tasks WHERE finished_at IS NULL")))
    assert open_tasks == []
