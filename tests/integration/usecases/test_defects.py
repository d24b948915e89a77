"""A plan that raises: the services of others go on, the thread lives and backs off, and `/health` says so."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
from sqlalchemy import text

from app.domain import services as planner
from app.usecases import defects, reconciling, sweeps
from app.usecases.context import Actor, Context
from app.usecases.health import Health
from tests.support.embedded import wait_until
from tests.support.services import Hands, create
from workers import services as follower

BROKEN = 3


def problems(ctx: Context) -> list[str]:
    return [one for one in Health(ctx).read()["problems"] if "defect" in one]


def test_a_service_whose_plan_breaks_holds_up_no_other(
    ctx: Context, actor: Actor, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = {"name": ctx.settings.node_name}
    with ctx.database.begin() as connection:
        connection.execute(text("INSERT INTO nodes (name, attributes) VALUES (:name, '{\"kept\": 1}')"), node)
    broken, well = create(ctx, actor, BROKEN).service_id, create(ctx, actor, 1).service_id
    hands.settle(well)
    [replica] = hands.live(well)
    hands.pass_time(100)
    monkeypatch.setattr(planner, "plan", _breaks_over(planner.plan))
    hands.fail(replica.id)
    with ctx.database.begin() as connection:
        connection.execute(text("UPDATE services SET look_at = hostler_now()"))
    assert sweeps.sweep(ctx, "w") is not None
    assert len(hands.live(well)) == 1, "its replica is replaced"
    [told] = problems(ctx)
    assert f"service {broken}: KeyError: 'a defect'" in told
    with ctx.database.read() as connection:
        kept = connection.execute(text("SELECT attributes->'kept' FROM nodes")).scalar()
    assert kept == 1
    assert reconciling.turn(ctx) == 0, "it is left alone for a while"
    hands.pass_time(defects.LEFT_ALONE_S + 1)
    assert reconciling.turn(ctx) >= 1
    assert problems(ctx)
    monkeypatch.undo()
    hands.pass_time(defects.TOLD_S + 1)
    reconciling.sweep(ctx)
    assert problems(ctx) == []
    hands.settle(broken)


def _breaks_over(plan: Any) -> Any:
    def broken(desired: Any, observed: Any, now: float) -> Any:
        if desired.count == BROKEN:
            raise KeyError("a defect")
        return plan(desired, observed, now)

    return broken


def test_the_thread_outlives_what_nobody_expected(
    ctx: Context, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stop, tries = threading.Event(), []

    def turn(_: Context) -> int:
        tries.append(1)
        if len(tries) < 3:
            raise RuntimeError("a defect")
        return 0

    monkeypatch.setattr(reconciling, "turn", turn)
    monkeypatch.setattr(follower, "LOOK_S", 0.01)
    thread = threading.Thread(target=follower.follow, args=(ctx, stop))
    with caplog.at_level(logging.ERROR):
        thread.start()
        wait_until(lambda: len(tries) > 3, 20, "it to go on")
        stop.set()
        thread.join(20)
    assert not thread.is_alive()
    assert "services are not looked after: a defect" in caplog.text
