"""Deep probes: now and then an engine is asked for one token, so that one that only listens is not called healthy.

What is known of each attempt is kept in memory and, with its last health, in the database: an agent that starts anew
asks nobody sooner, and goes on holding hung what it held hung.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from zlib import crc32

from app.domain.lifecycle import SERVING, State
from app.domain.progress import Answer, Progress, Reading
from app.engines.base import Counters, HttpCheck
from app.usecases import reach
from workers.bootstrap import Runtime
from workers.engine_targets import engine_of
from workers.jobs import Jobs
from workers.probes.counters import read_counters
from workers.probes.diagnostics import run_check

log = logging.getLogger(__name__)

#: Longest wait for one token. What is saturated is told by its counters, not by patience.
ANSWER_S = 30.0
COUNTERS_S = 5.0
#: One whose work was not seen yet is asked for the first time after this share of the interval, spread over as much.
FIRST_SHARE = 1 / 30
#: What is told of one that works and does not get to our question.
BUSY = "busy: its counters move, and our token was not due in time"
#: Attempts that were not looked at for so long are forgotten.
FORGET_S = 600.0


@dataclass
class _Known:
    """One attempt. ``next_at`` is monotonic."""

    attempt: int
    next_at: float
    progress: Progress = field(default_factory=Progress)
    #: as it is shown, in ``last_health["deep"]``
    shown: dict[str, Any] | None = None
    seen_at: float = 0.0


class DeepProbes:
    """One per agent. ``consider`` after each good health probe; ``hung`` and ``shown`` tell what came of it."""

    def __init__(self, runtime: Runtime) -> None:
        self._ctx = runtime.ctx
        self._interval_s = runtime.settings.deep_probe_s
        self._known: dict[str, _Known] = {}
        self._lock = threading.Lock()
        # a hung engine holds a thread until its time is over
        self._jobs = Jobs("deep", 16)
        self._next_forget = 0.0

    def consider(self, row: Any) -> None:
        """It answers its health probe, and the socket is its own: look deeper if it is time, in a thread."""
        if self._interval_s <= 0 or State(row.state) not in SERVING or self._jobs.has(row.id):
            return
        engine, config = engine_of(row), row.spec["resolved"]["config"]
        check = engine.deep_probe(config)
        if check is None:
            return
        now = time.monotonic()
        known = self._find(row, now)
        if now >= known.next_at:
            self._jobs.begin(row.id, self._probe, row, known, check, engine.counters(config))
        elif known.progress.suspect:
            self._jobs.begin(row.id, self._look, row, known, engine.counters(config))

    def is_at_rest(self, replica_id: str, attempt: int, stored: dict[str, Any] | None) -> bool:
        """Whether ``consider`` would do nothing about it and ``shown`` is what is stored; costs next to nothing."""
        if self._interval_s <= 0:
            return True
        known = self._known.get(replica_id)
        if known is None or known.attempt != attempt:
            return False
        now = known.seen_at = time.monotonic()
        if known.progress.suspect or known.progress.hung or known.shown != stored:
            return False
        return now < known.next_at or self._jobs.has(replica_id)

    def hung(self, row: Any) -> str:
        """Why it counts as hung; empty while it does not."""
        known = self._known.get(row.id)
        if known is None or known.attempt != row.attempt:
            return _stored(row).get("hung", "") if self._interval_s > 0 else ""
        return known.progress.hung

    def shown(self, row: Any) -> dict[str, Any] | None:
        """What is kept with the replica's last health; None while nothing is known."""
        known = self._known.get(row.id)
        return known.shown if known is not None and known.attempt == row.attempt else _stored(row) or None

    def close(self) -> None:
        """Wait for what is under way."""
        self._jobs.close()

    def _find(self, row: Any, now: float) -> _Known:
        with self._lock:
            known = self._known.get(row.id)
            if known is None or known.attempt != row.attempt:
                known = self._known[row.id] = self._recall(row, now)
            known.seen_at = now
            if now >= self._next_forget:
                self._next_forget = now + FORGET_S
                self._known = {one: it for one, it in self._known.items() if now - it.seen_at < FORGET_S}
        return known

    def _recall(self, row: Any, now: float) -> _Known:
        """As the agent before this one left it; else due soon, or in its turn when its diagnostics passed."""
        stored = _stored(row)
        if stored:
            age_s = max(0.0, (datetime.now(UTC) - datetime.fromisoformat(stored["at"])).total_seconds())
            hung = str(stored.get("hung", ""))
            progress = Progress(failure=hung, hung=hung)
            return _Known(row.attempt, now + self._interval_s - min(age_s, self._interval_s), progress, stored)
        spread = crc32(row.id.encode()) % 1000 / 1000
        if (row.diagnostics or {}).get("passed"):
            return _Known(row.attempt, now + self._interval_s * (0.5 + spread / 2))
        return _Known(row.attempt, now + self._interval_s * FIRST_SHARE * (1 + spread))

    def _probe(self, row: Any, known: _Known, check: HttpCheck, counters: Counters | None) -> None:
        if not reach.url(self._ctx, row):
            return
        before = self._read(row, counters)
        if known.progress.worked(before):
            progress, found = known.progress.after_work(before), {"ok": True, "detail": "requests finished"}
        else:
            answer, found = self._ask(row, check)
            progress = known.progress.after_answer(before, self._read(row, counters), answer)
            if answer.ok is False and not progress.suspect:
                found |= {"ok": True, "detail": BUSY}
        # from its end: the looks in between need their time, however long it waited
        known.next_at = time.monotonic() + self._interval_s
        self._keep(row, known, progress, found)

    def _look(self, row: Any, known: _Known, counters: Counters | None) -> None:
        if not reach.url(self._ctx, row):
            return
        now = self._read(row, counters)
        progress = known.progress.after_look(now, has_counters=counters is not None)
        found = {"ok": False, "detail": progress.failure}
        if not progress.suspect:
            found = {"ok": True, "detail": BUSY}
        self._keep(row, known, progress, {**(known.shown or {}), **found})

    def _ask(self, row: Any, check: HttpCheck) -> tuple[Answer, dict[str, Any]]:
        limit_s = min(ANSWER_S, max(1.0, self._interval_s))
        deadline = time.monotonic() + limit_s
        found = run_check(check, reach.url(self._ctx, row), row.model_name, self._key(row), deadline)
        ok: bool | None = found["ok"]
        if not ok and 400 <= (found["status"] or 0) < 500:
            # it refused this question: that says nothing about those it takes
            ok = None
        what = found["detail"] or f"HTTP {found['status']}"
        limit = "" if found["status"] else f" ({limit_s:g} s)"
        # not "token: ...": the log masks what follows such a word
        detail = "" if ok else f"{check.name} was asked for and did not come, {what}{limit}"
        return Answer(ok, detail), {"ok": ok, "detail": detail, "latency_ms": found["latency_ms"]}

    def _read(self, row: Any, counters: Counters | None) -> Reading | None:
        if counters is None:
            return None
        return read_counters(counters, reach.url(self._ctx, row), self._key(row), COUNTERS_S)

    def _key(self, row: Any) -> str:
        return self._ctx.engine_key if engine_of(row).checks_key else ""

    def _keep(self, row: Any, known: _Known, progress: Progress, found: dict[str, Any]) -> None:
        if progress.hung and not known.progress.hung:
            log.warning("replica %s is hung: %s", row.id, progress.hung)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        # the moment of the last deep probe, not of the last look at the counters
        shown = {"at": now, **{name: value for name, value in found.items() if name not in ("hung", "attempt")}}
        known.shown = {**shown, "attempt": known.attempt, "hung": progress.hung}
        known.progress = progress


def stored_hung(row: Any) -> str:
    """Why the agent holds this attempt hung, for who only has its row; empty when it does not."""
    return str(_stored(row).get("hung", ""))


def _stored(row: Any) -> dict[str, Any]:
    """What was kept of this attempt; an earlier attempt's work proves nothing of this one's."""
    deep = (row.last_health or {}).get("deep") or {}
    return deep if deep.get("attempt") == row.attempt else {}
