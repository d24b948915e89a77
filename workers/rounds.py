"""Rounds over what serves: what looks as it did costs a probe and nothing else; the rest is looked at in full."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

from app.domain.lifecycle import State
from app.usecases import reach, rounds
from app.usecases.reach import Address
from workers.backends.base import Backend, Handle, Liveness, Observation
from workers.bootstrap import is_alive
from workers.engine_targets import engine_of, handle_of, readiness_target
from workers.probes.batch import Prober
from workers.probes.wire import ProbeResult, ProbeTarget
from workers.watch import FRESH_S, PROBE_TIMEOUT_S, Watch, health_time

#: What is well answers in less; what does not is asked again, in its turn and with patience.
QUICK_S = 1.0
#: Replicas that are looked at together.
BATCH = 5000


@dataclass(slots=True)
class _Steady:
    """A ready replica that was well when its row was read, and what one look at it needs."""

    id: str
    mark: str
    attempt: int
    pool: str
    backend: Backend
    handle: Handle
    #: None: the backend itself answers
    target: ProbeTarget | None
    #: whether its engine can be asked for work, and what the last health says of that
    works: bool
    deep: dict[str, Any] | None
    #: where it listens is what its backend tells
    learned: bool
    #: its turn in which the stored probe is renewed
    turn: int


class Rounds:
    """For one thread, over what serves on ``node``, or on none if that is ours to do. ``found`` is handed the rows that
    were claimed: they were new, had changed or are not well."""

    def __init__(self, watch: Watch, prober: Prober, found: Callable[[Sequence[Any]], None], node: str | None) -> None:
        self._node = node
        self._watch = watch
        self._ctx = watch.ctx
        self._prober = prober
        self._found = found
        self._interval_s = watch.ctx.settings.probe_interval_s
        self._silent_s = 2 * self._interval_s + PROBE_TIMEOUT_S
        self._turns = max(1, round(FRESH_S / self._interval_s))
        self._number = 0
        self._steady: dict[str, _Steady] = {}
        self._next_at = 0.0

    @property
    def wait_s(self) -> float:
        """Seconds until the next round is due."""
        return max(0.0, self._next_at - time.monotonic())

    def turn(self) -> int:
        """Look at all of it. Returns how many: all but those that somebody else looked at a moment ago."""
        self._next_at = time.monotonic() + self._interval_s
        self._number += 1
        if not self._hold():
            self._steady = {}
            return 0
        marks = rounds.list_serving(self._ctx, self._node)
        self._steady = steady = {one: self._steady[one] for one in marks if one in self._steady}
        looked = 0
        for number, batch in enumerate(_batches(list(marks))):
            # a round that takes long is still ours, unless we were frozen in it
            if number and not self._hold():
                break
            looked += self._look(batch, marks, steady)
        return looked

    def _hold(self) -> bool:
        return rounds.hold(self._ctx, self._node, self._watch.runtime.id, is_alive, self._silent_s)

    def _look(self, ids: Sequence[str], marks: dict[str, str], steady: dict[str, _Steady]) -> int:
        unchanged = [one for one in map(steady.get, ids) if one is not None and one.mark == marks[one.id]]
        well = self._well(unchanged)
        others = [one for one in ids if one not in well]
        for one in others:
            steady.pop(one, None)
        return len(well) + self._look_in_full(others, steady)

    def _look_in_full(self, ids: Sequence[str], steady: dict[str, _Steady]) -> int:
        if not ids:
            return 0
        rows = rounds.claim(self._ctx, ids)
        # from now, so that what was claimed just now is due again in the next round
        self._next_at = time.monotonic() + self._interval_s
        self._found(rows)
        steady.update((row.id, self._as_steady(row)) for row in rows if self._is_steady(row))
        self._watch.look(rows, self._prober)
        return len(rows)

    def _well(self, ones: Sequence[_Steady]) -> set[str]:
        """Which of them are as they were; their stored probes are renewed in turn."""
        observed = self._inspect(ones)
        asked = [one for one in ones if one.target is not None and _may_be_asked(observed[one.id])]
        answers = self._prober.probe([one.target for one in asked if one.target is not None])
        probes = {one.id: answer for one, answer in zip(asked, answers, strict=True)}
        well = [one for one in ones if self._is_well(one, observed[one.id], probes.get(one.id))]
        self._watch.note_answering([(one.pool, one.id) for one in well])
        self._freshen([one for one in well if one.turn == self._number % self._turns], probes)
        return {one.id for one in well}

    def _is_well(self, one: _Steady, seen: Observation, probe: ProbeResult | None) -> bool:
        if one.target is None:
            return seen.liveness is Liveness.RUNNING and seen.answers is True
        if probe is None or not probe.ok or _has_moved(one, seen):
            return False
        return not (one.works and seen.owns_port) or self._watch.is_at_rest(one.id, one.attempt, one.deep)

    def _inspect(self, ones: Sequence[_Steady]) -> dict[str, Observation]:
        by_place: defaultdict[Backend, list[_Steady]] = defaultdict(list)
        for one in ones:
            by_place[one.backend].append(one)
        looks = self._watch.inspect_all({at: [one.handle for one in batch] for at, batch in by_place.items()})
        return {one.id: seen for at, looked in looks.items() for one, seen in zip(by_place[at], looked, strict=True)}

    def _freshen(self, ones: Sequence[_Steady], probes: dict[str, ProbeResult]) -> None:
        found: list[rounds.GoodProbe] = []
        for one in ones:
            probe = probes.get(one.id)
            if probe is None:
                found.append((one.id, one.attempt, None, None, ""))
            else:
                found.append((one.id, one.attempt, probe.status, probe.latency_ms, probe.detail))
        marks = rounds.freshen(self._ctx, health_time(), found)
        for one in ones:
            # what changed meanwhile keeps its old mark, and so is read anew
            one.mark = marks.get(one.id, one.mark)

    def _is_steady(self, row: Any) -> bool:
        return (
            row.state == State.READY
            and self._watch.has_backend(row)
            and row.check_failures == 0
            and row.backend_ref is not None
            and bool(row.last_health and row.last_health.get("healthy"))
            # the local end of a tunnel may move at any time: it is looked up anew at each look
            and ((row.port is not None and not reach.wants_tunnel(row)) or not self._serves_http(row))
        )

    def _serves_http(self, row: Any) -> bool:
        return self._watch.runtime.backend_of(row).serves_http

    def _target(self, row: Any) -> ProbeTarget | None:
        address = reach.address(self._ctx, row)
        return replace(readiness_target(row, address), timeout_s=QUICK_S) if isinstance(address, Address) else None

    def _as_steady(self, row: Any) -> _Steady:
        return _Steady(
            id=row.id,
            mark=row.mark,
            attempt=row.attempt,
            pool=row.pool,
            backend=self._watch.runtime.backend_of(row),
            handle=handle_of(row.backend, row.attempt_name, row.backend_ref),
            target=self._target(row) if self._serves_http(row) else None,
            works=engine_of(row).deep_probe(row.spec["resolved"]["config"]) is not None,
            deep=row.last_health.get("deep"),
            learned=row.node is None,
            turn=crc32(row.id.encode()) % self._turns,
        )


def _has_moved(one: _Steady, seen: Observation) -> bool:
    return one.learned and one.target is not None and (seen.host, seen.port) != (one.target.host, one.target.port)


def _may_be_asked(seen: Observation) -> bool:
    return seen.liveness is Liveness.RUNNING and seen.owns_port is not False


def _batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), BATCH):
        yield ids[start : start + BATCH]
