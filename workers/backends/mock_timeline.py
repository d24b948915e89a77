"""What a mocked attempt is at a given moment: pure, from when it was launched, how, and when it was asked to end."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from workers.backends.base import Liveness, LogPart, Observation

_SIGTERM, _SIGKILL = 15, 9


@dataclass(frozen=True)
class Life:
    """Facts about one mocked attempt. Moments are seconds of the epoch."""

    name: str
    launched_at: float
    options: Mapping[str, Any]
    asked_at: float | None = None
    killed_at: float | None = None
    #: stopped before it was launched: the name is taken, nothing ever ran
    sealed: bool = False

    @property
    def starts_at(self) -> float:
        return self.launched_at + self.options.get("queue_s", 0)


def observe(life: Life, now: float) -> Observation:
    """One observation, as the options want it."""
    options, age_s = life.options, now - life.starts_at
    if life.sealed:
        return Observation(Liveness.ABSENT, message="was stopped before it was launched")
    lost = options.get("lose_handle")
    if lost and age_s >= options.get("lose_after_s", 0):
        return Observation(Liveness(lost), message="the mock has lost its handle, as told")
    if is_unreachable(life, now):
        return Observation(Liveness.UNKNOWN, message="the mock cannot be asked, as told")
    if fails(options, "inspect", life.name, second=int(now - life.launched_at)):
        return Observation(Liveness.UNKNOWN, message="the mock failed to look, as told")
    end = _end(life)
    if end is not None and now >= end[0]:
        return _ended(life, *end)
    started_at = _moment(life.starts_at)
    if age_s < 0:
        return Observation(Liveness.QUEUED, message=f"waits in the mock's queue for {-age_s:.1f} s more")
    return Observation(Liveness.RUNNING, started_at=started_at, answers=_answers(options, age_s))


def is_unreachable(life: Life, now: float) -> bool:
    """Whether the backend cannot be asked about it now."""
    after_s = life.options.get("unreachable_after_s")
    if after_s is None:
        return False
    away_s = now - life.starts_at - after_s
    return 0 <= away_s < life.options.get("unreachable_for_s", float("inf"))


def fails(options: Mapping[str, Any], verb: str, name: str, *, second: int = 0) -> bool:
    """Whether ``fail_<verb>`` is ``always`` or its probability strikes. Counts are the backend's, not this one's.

    Drawn from seed, name and verb, anew for each ``second`` of the attempt's life.
    """
    wish = options.get(f"fail_{verb}", 0)
    if wish == "always" or wish is True:
        return True
    return isinstance(wish, float) and draw(options.get("seed", 0), name, verb, second) < wish


def draw(*parts: object) -> float:
    """A number from 0 up to 1, the same for the same parts."""
    digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def log_lines(life: Life, now: float) -> list[str]:
    """What it would have written: one line per event, and one a minute while it runs, for the last hour."""
    return [line for _, line in _log_events(life, now)]


def log_part(life: Life, now: float, place: str, limit: int) -> LogPart:
    """At most ``limit`` bytes of the same from ``place`` on: the moment of an event, and bytes given since it began."""
    events = _log_events(life, now)
    if not events:
        return LogPart(b"", place)
    since, given = _parsed(place)
    if since is not None and not any(at == since for at, _ in events):
        # it told of a minute that is forgotten
        since, given = None, 0
    ahead = [(at, f"{line}\n".encode()) for at, line in events if since is None or at >= since]
    data = b"".join(line for _, line in ahead)[given : given + limit]
    end = given + len(data)
    begins = {at: sum(len(line) for earlier, line in ahead if earlier < at) for at, _ in ahead}
    at = max(at for at, begin in begins.items() if begin < end or at == ahead[0][0])
    return LogPart(data, f"{at!r}+{end - begins[at]}", gap=bool(place) and since is None)


def tail_place(life: Life, now: float, lines: int) -> str:
    """The place for ``log_part`` before the last ``lines`` lines."""
    events = _log_events(life, now)
    if not events:
        return ""
    first = max(0, len(events) - lines)
    at = events[min(first, len(events) - 1)][0]
    given = sum(len(f"{line}\n".encode()) for moment, line in events[:first] if moment == at)
    return f"{at!r}+{given}"


def _parsed(place: str) -> tuple[float | None, int]:
    moment, mark, given = place.partition("+")
    try:
        return (float(moment), max(0, int(given))) if mark else (None, 0)
    except ValueError:
        return None, 0


def _log_events(life: Life, now: float) -> list[tuple[float, str]]:
    options = life.options
    if life.sealed:
        return []
    events = [(life.launched_at, f"mock {life.name}: launched, nothing runs")]
    end = _end(life)
    last = min(now, end[0]) if end else now
    if life.starts_at <= last:
        events.append((life.starts_at, "mock: started"))
        events.append((life.starts_at + options.get("ready_delay_s", 0), "mock: ready"))
        minutes = int((last - life.starts_at) // 60)
        events += [
            (life.starts_at + 60 * minute, f"mock: alive for {minute} min")
            for minute in range(max(1, minutes - 59), minutes + 1)
        ]
    if life.asked_at is not None:
        events.append((life.asked_at, "mock: asked to end"))
    if end:
        events.append((end[0], f"mock: {_ended(life, *end).message}"))
    shown = sorted((event for event in events if event[0] <= now), key=lambda event: event[0])
    return [(at, f"{_moment(at).isoformat(timespec='milliseconds')} {line}") for at, line in shown]


def _end(life: Life) -> tuple[float, int | None, int | None] | None:
    """The moment, exit code and signal of its end, if one is foreseen."""
    ends: list[tuple[float, int | None, int | None]] = []
    if "exit_after_s" in life.options:
        ends.append((life.starts_at + life.options["exit_after_s"], life.options.get("exit_code", 1), None))
    if life.asked_at is not None:
        queued = life.asked_at < life.starts_at
        delay_s = 0 if queued else life.options.get("stop_delay_s", 0)
        ends.append((life.asked_at + delay_s, None, _SIGTERM))
    if life.killed_at is not None:
        ends.append((life.killed_at, None, _SIGKILL))
    return min(ends, key=lambda end: end[0], default=None)


def _ended(life: Life, at: float, exit_code: int | None, number: int | None) -> Observation:
    how = f"exited with code {exit_code}" if number is None else f"ended by signal {number}, as asked"
    return Observation(
        Liveness.EXITED,
        exit_code=exit_code,
        signal=number,
        message=how,
        started_at=_moment(life.starts_at) if at >= life.starts_at else None,
        ended_at=_moment(at),
    )


def _answers(options: Mapping[str, Any], age_s: float) -> bool:
    ready_s = age_s - options.get("ready_delay_s", 0)
    if ready_s < 0:
        return False
    period_s = options.get("flap_period_s", 0)
    return not period_s or int(ready_s / period_s) % 2 == 0


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
