"""Named places between load, act and apply, at which a process of the stack kills or freezes itself, once.

A file ``armed/<name>`` in the harness's folder arms one: ``{"signal": 9, "role": "worker", "line": n or null, "token":
"..."}``. Whoever comes by first takes it (one rename to ``fired/<name>``), writes its pid to ``fired/<token>.pid``, and
signals itself. With ``line`` the
signal comes at the n-th line of our own code inside the call: any line may be the last one.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from tests.faults.harness.injection import FOLDER

_ROOT = str(Path(__file__).resolve().parents[3])
_OURS = (f"{_ROOT}/app/", f"{_ROOT}/workers/")


@dataclass(frozen=True)
class Point:
    """``when`` is ``before`` or ``after`` the call of ``target``, or ``inside`` it at a line.

    ``given``: only calls count that are given something to do, not those with an empty list.
    """

    name: str
    target: str
    when: str
    roles: tuple[str, ...]
    given: bool = False


_WORK = ("worker",)
_CONTROL = ("worker-control",)
_AGENT = ("agent",)
_API = ("web",)
_SWEEP = ("worker", "worker-control", "agent")
_GATEWAY = ("gateway-agent",)
#: Who brings services on: whoever was asked, the agent's thread, and the sweep.
_RECONCILERS = ("web", "agent", "agent", "worker-control")


def around(name: str, target: str, roles: tuple[str, ...], *, given: bool = False) -> tuple[Point, ...]:
    """Right before the call, and right after it."""
    return tuple(Point(f"{name}.{when}", target, when, roles, given) for when in ("before", "after"))


POINTS: dict[str, Point] = {
    point.name: point
    for point in (
        # API: validated, written, committed, rung for, told
        *around("create.commit", "app.usecases.creates:first_row", _API),
        *around("create.request", "app.usecases.creates:request_create", _API),
        *around("change.commit", "app.db.engine:Database.change", _API),
        *around("ring", "app.doorbell.bell:Doorbell.ring", (*_API, *_SWEEP)),
        *around("notify", "app.usecases.signals:notify", (*_API, *_SWEEP)),
        # launch: claim, plan, ask the backend, save, look, apply
        Point("launch.leased", "app.usecases.launch_claims:_take_capacity", "after", _WORK),
        *around("launch.claim", "app.usecases.launch_claims:claim_launch", _WORK),
        *around("launch.run", "workers.launching:_Launch.run", _WORK),
        *around("launch.adopt", "workers.backends.process:ProcessBackend.adopt", _WORK),
        *around("launch.record", "app.usecases.launches:record_launching", _WORK),
        *around("launch.process", "workers.backends.launching:launch_process", _WORK),
        *around("launch.mock", "workers.backends.mock:MockBackend.launch", _WORK),
        *around("launch.save", "app.usecases.launches:record_launched", _WORK),
        *around("launch.ready", "app.usecases.launches:record_ready", _WORK),
        *around("launch.leave", "app.usecases.launches:leave_to_sweep", _WORK),
        *around("launch.failed", "app.usecases.ends:record_failed", (*_WORK, *_AGENT)),
        # stop: claim, ask, watch, apply
        *around("other.claim", "app.usecases.claims:claim", _CONTROL),
        *around("stop.process", "workers.backends.process:ProcessBackend.stop", (*_CONTROL, *_AGENT)),
        *around("stop.mock", "workers.backends.mock:MockBackend.stop", (*_CONTROL, *_AGENT)),
        *around("stop.asked", "app.usecases.watching:record_stop_asked", (*_CONTROL, *_AGENT)),
        *around("stop.gone", "app.usecases.ends:record_gone", (*_CONTROL, *_AGENT)),
        *around("stop.leave", "app.usecases.claims:leave", _CONTROL),
        # probes of a health task
        *around("probe.finish", "app.usecases.claims:finish", _CONTROL),
        *around("probe.back", "app.usecases.claims:put_back", _CONTROL),
        # judge: what is due, what was seen
        *around("judge.due", "app.usecases.watching:claim_due", _AGENT),
        *around("judge.moves", "app.usecases.watching:record_sweep_moves", _AGENT, given=True),
        *around("judge.facts", "app.usecases.watching:record_facts", _AGENT, given=True),
        *around("judge.adopt", "app.usecases.watching:record_handle", _AGENT),
        # sweep: win the tick, take back, ring
        Point("sweep.won", "app.usecases.sweeps:_win", "after", _SWEEP),
        *around("sweep.back", "app.usecases.sweeps:_take_back", _SWEEP),
        *around("sweep.dead", "app.usecases.presence:take_back_dead", _AGENT),
        # any line
        Point("line.launch", "workers.launching:carry_out_launch", "inside", _WORK),
        Point("line.stop", "workers.stopping:carry_out_stop", "inside", _CONTROL),
        Point("line.end", "workers.stopping:end_attempt", "inside", (*_CONTROL, *_AGENT)),
        Point("line.health", "workers.probing:carry_out_health", "inside", _CONTROL),
        Point("line.judge", "workers.watch:Watch.look", "inside", _AGENT),
        Point("line.sweep", "app.usecases.sweeps:sweep", "inside", _SWEEP),
    )
}

#: Those of the gateway's agent; a set of its own, so that a new one draws no other point anew.
DOOR_POINTS: dict[str, Point] = {
    point.name: point
    for point in (
        # route: say that it may be routed, write the files, tell HAProxy command by command, confirm what is gone
        *around("route.hold", "app.usecases.gateways:hold", _GATEWAY),
        *around("route.write", "app.gateway.writing:Files.write", _GATEWAY),
        *around("route.file", "app.gateway.files:write_file", _GATEWAY),
        *around("route.apply", "app.gateway.haproxy:Haproxy.carry_out", _GATEWAY),
        *around("route.let_go", "app.usecases.gateways:let_go", _GATEWAY),
        *around("route.idle", "app.usecases.drains:record_idle", _GATEWAY),
        Point("line.turn", "app.gateway.keeping:Keeper.turn", "inside", _GATEWAY),
    )
}

#: Those of services: wanted, looked at, planned, acted on, told.
SERVICE_POINTS: dict[str, Point] = {
    point.name: point
    for point in (
        *around("service.create", "app.usecases.services:create", _API),
        *around("service.scale", "app.usecases.services:scale", _API),
        *around("service.update", "app.usecases.services:update", _API),
        *around("service.cancel", "app.usecases.services:cancel", _API),
        *around("reconcile.turn", "app.usecases.reconciling:turn", ("agent", "worker-control")),
        *around("reconcile.look", "app.db.repos.services:lock_free", ("agent", "worker-control")),
        *around("reconcile.hints", "app.db.repos.service_hints:take", _RECONCILERS),
        *around("reconcile", "app.usecases.reconciling:reconcile", _RECONCILERS),
        *around("reconcile.stop", "app.usecases.stops:stop", _RECONCILERS),
        *around("reconcile.made", "app.usecases.creates:insert", _RECONCILERS),
        *around("reconcile.joined", "app.db.repos.service_members:insert", _RECONCILERS),
        *around("reconcile.change", "app.db.repos.services:change", _RECONCILERS),
        *around("reconcile.tell", "app.usecases.reconciling:Effects.tell", _RECONCILERS),
        *around("gang.take", "app.usecases.gangs:take", _WORK),
        Point("gang.leased", "app.usecases.gangs:_lease", "after", _WORK),
        Point("line.reconcile", "app.usecases.reconciling:turn", "inside", ("agent", "worker-control")),
        Point("line.gang", "app.usecases.gangs:take", "inside", _WORK),
    )
}


def patches() -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """``module:dotted.name`` and what to put around it, for every point."""
    from tests.faults.harness.places.points import PLACE_POINTS

    for point in (*POINTS.values(), *DOOR_POINTS.values(), *SERVICE_POINTS.values(), *PLACE_POINTS.values()):
        yield point.target, functools.partial(_around_call, point)


def _around_call(point: Point, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call(*arguments: Any, **named: Any) -> Any:
        if point.given and not all(arguments):
            return original(*arguments, **named)
        if point.when == "before":
            _fire(point.name)
        elif point.when == "inside":
            return _inside(point.name, original, *arguments, **named)
        result = original(*arguments, **named)
        if point.when == "after":
            _fire(point.name)
        return result

    return call


def _take(name: str) -> dict[str, Any] | None:
    """The order, if the point is armed for this role and nobody else was faster."""
    folder = Path(os.environ[FOLDER])
    armed, fired = folder / "armed" / name, folder / "fired" / name
    try:
        order = json.loads(armed.read_bytes())
        if order["role"] != os.environ.get("HOSTLER_ROLE"):
            return None
        armed.rename(fired)
    except FileNotFoundError:
        return None
    return order


def _signal(order: dict[str, Any]) -> None:
    fired = Path(os.environ[FOLDER]) / "fired" / f"{order['token']}.pid"
    fired.write_text(f"{os.getpid()} {os.environ.get('HOSTLER_ROLE', '')}\n")
    os.kill(os.getpid(), order["signal"])


def _fire(name: str) -> None:
    order = _take(name)
    if order is not None:
        _signal(order)


def _inside(name: str, original: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    order = _take(name)
    if order is None:
        return original(*arguments, **named)
    left = order["line"]

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(_OURS):
            return None
        if event == "line":
            left -= 1
            if left <= 0:
                sys.settrace(None)
                _signal(order)
                return None
        return trace

    sys.settrace(trace)
    try:
        return original(*arguments, **named)
    finally:
        sys.settrace(None)
