"""A service's rows as the planner wants them: what is desired, and what is seen of each member."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from app.domain.lifecycle import Reason, State
from app.domain.services import Desired, Observed, Restart, Update

#: Rows that are read one after the other may differ by so much; more is a clock that was set back.
_SLACK_S = 5.0
#: Longer than any backoff.
_LONG_S = 86_400.0


def desired_of(row: Any, spec: Mapping[str, Any]) -> Desired:
    """What the service's row and the ``spec`` of its wanted revision ask for."""
    rollout = row.rollout
    return Desired(
        count=row.count,
        revision=row.revision,
        good_revision=row.good_revision,
        running=row.desired_state == "running",
        paused=row.paused,
        update=Update(**_known(Update, spec.get("update"))),
        restart=Restart(**_known(Restart, spec.get("restart"))),
        all_or_nothing=bool(spec.get("all_or_nothing")),
        successor_lead_s=spec.get("successor_lead_s"),
        reset_at=row.reset_at.timestamp(),
        rollout_since=rollout.get("since"),
        rolled_out=rollout.get("state") == "complete",
        given_up=frozenset(rollout.get("given_up") or ()),
        reason=Reason(row.reason) if row.reason and row.desired_state != "running" else None,
    )


def observed_of(row: Any, loads: Mapping[str, int], now: float) -> Observed:
    """One member; ``loads`` are the requests in flight by replica, as far as they are known."""
    # what lies ahead was written before the clock was set back: it is long past, or its backoff would wait until then
    ahead_s = row.state_since.timestamp() - now
    back_s = ahead_s + _LONG_S if ahead_s > _SLACK_S else 0.0
    asked_at = _moment(row.timestamps, State.PENDING, back_s)
    ready_at = _moment(row.timestamps, State.READY, back_s)
    if ready_at is not None and asked_at is not None and ready_at < asked_at:
        # of an attempt before
        ready_at = None
    return Observed(
        replica_id=row.replica_id,
        ordinal=row.ordinal,
        revision=row.revision,
        state=State(row.state),
        created_at=row.created_at.timestamp() - back_s,
        state_since=row.state_since.timestamp() - back_s,
        wanted=row.desired_state == "running",
        reason=Reason(row.reason) if row.reason else None,
        ready_at=ready_at,
        asked_at=asked_at,
        tries=row.tries,
        replaces=row.replaces,
        lifetime_ends_at=row.lifetime_ends_at.timestamp() if row.lifetime_ends_at else None,
        released=row.released_at is not None,
        load=loads.get(row.replica_id, 0),
        suspect=row.suspect,
    )


def by_service(rows: Sequence[Any]) -> dict[str, list[Any]]:
    """Member rows by the service they belong to."""
    found: dict[str, list[Any]] = {}
    for row in rows:
        found.setdefault(row.service_id, []).append(row)
    return found


def _known(kind: type[Update] | type[Restart], given: Mapping[str, Any] | None) -> dict[str, Any]:
    # the version after this one may know more
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in (given or {}).items() if name in names and value is not None}


def _moment(timestamps: Mapping[str, str], state: State, back_s: float) -> float | None:
    told = timestamps.get(state)
    return datetime.fromisoformat(told).timestamp() - back_s if told else None
