"""A create rings before it is written, and trusts the bell.

The worker that hears it finds nothing to claim and forgets it; then the row is committed, and nobody rings again.
Taken out: the ring after the commit, and the sweep that rings for whatever waits, which would repair it within one
interval. What stays of the bells are those that other work rings: a stop, an end, a queue that held more. The commit
comes ``COMMIT_S`` after the ring, as it may on a busy disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

COMMIT_S = 0.05


class _Rung:
    """The bell, rung already."""

    def ring(self, *_: Any, **__: Any) -> None: ...


class _Hasty:
    """The context of a create whose ring comes first."""

    def __init__(self, ctx: Any) -> None:
        self.first = ctx
        self.doorbell = _Rung()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.first, name)


def _without_a_late_ring(original: Callable[..., Any]) -> Callable[..., Any]:
    def request_create(ctx: Any, *arguments: Any, **named: Any) -> Any:
        return original(_Hasty(ctx), *arguments, **named)

    return request_create


def _ring_first(original: Callable[..., Any]) -> Callable[..., Any]:
    def values(ctx: Any, actor: Any, body: Any, plan: Any, *more: Any) -> Any:
        from app.domain.tasks import TaskKind
        from app.doorbell.queues import queue_for

        if not isinstance(ctx, _Hasty):
            # a service makes it, in a transaction of more than that
            return original(ctx, actor, body, plan, *more)
        # what the insert binds is asked for right before it
        ctx.first.doorbell.ring_now(TaskKind.CREATE, queue_for(TaskKind.CREATE, plan.pool, None), pool=plan.pool)
        time.sleep(COMMIT_S)
        return original(ctx, actor, body, plan, *more)

    return values


def _without_ringing(sweeps: dict[str, Any]) -> dict[str, Any]:
    assert "rung" in sweeps
    return {name: act for name, act in sweeps.items() if name != "rung"}


PATCHES: dict[str, Callable[[Any], Any]] = {
    "app.usecases.creates:request_create": _without_a_late_ring,
    "app.usecases.creates:_values": _ring_first,
    "app.usecases.sweeps:_SWEEPS": _without_ringing,
}
