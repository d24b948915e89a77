"""Whether an engine that answers its health probe does any work. Pure: what was seen in, what it means out.

Hung means all of it: a deep probe failed, and since then, for ``LOOKS`` looks in a row, no request finished and no
counter of the engine moved. A counter that moves is work: busy is not hung, however long a request waits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

#: Looks without any progress, after a deep probe that failed, until an engine is hung.
LOOKS = 3
#: Of an engine without counters nobody can tell busy from hung by a look: so many deep probes in a row must fail.
FAILURES_ALONE = 3


@dataclass(frozen=True)
class Reading:
    """An engine's counters at one moment: requests that finished, and whatever grows while it works."""

    finished: float
    progress: float


@dataclass(frozen=True)
class Answer:
    """What a deep probe came to. ``ok`` None: it was answered, but the answer says nothing about its work (a 4xx)."""

    ok: bool | None
    detail: str = ""


@dataclass(frozen=True)
class Progress:
    """What is known of one attempt's work. Each step returns the next value."""

    last: Reading | None = None
    #: what the deep probe that failed last said; empty since it answered, finished something or made progress
    failure: str = ""
    failures: int = 0
    still: int = 0
    #: why it counts as hung; empty while it does not
    hung: str = ""

    @property
    def suspect(self) -> bool:
        """A deep probe failed and nothing has moved since: look at the counters at each health probe."""
        return bool(self.failure)

    def worked(self, now: Reading | None) -> bool:
        """Whether a request finished since the last reading, so that no deep probe is needed."""
        return now is not None and self.last is not None and now.finished > self.last.finished

    def after_work(self, now: Reading | None) -> Progress:
        """It works: whatever was held against it is forgotten."""
        return Progress(last=now or self.last)

    def after_answer(self, before: Reading | None, after: Reading | None, answer: Answer) -> Progress:
        """A deep probe was sent between the two readings (None: there are no counters, or they do not answer)."""
        if answer.ok is not False:
            return self.after_work(after)
        if _moved(before or self.last, after):
            return self.after_work(after)
        return replace(self, last=after or before or self.last, failure=answer.detail, failures=self.failures + 1)

    def after_look(self, now: Reading | None, *, has_counters: bool) -> Progress:
        """The counters were read once more while it is suspect. None of an engine with counters: they do not answer."""
        if not self.suspect or _moved(self.last, now):
            return self.after_work(now)
        known = replace(self, last=self.last or now, still=self.still + 1)
        if self.hung:
            return known
        if has_counters and known.still >= LOOKS:
            return replace(known, hung=f"{known.failure}; {_stillness(known)}")
        if not has_counters and known.failures >= FAILURES_ALONE:
            why = f"{known.failures} deep probes in a row failed, and it has no counters to tell it from busy"
            return replace(known, hung=f"{known.failure}; {why}")
        return known


def _moved(before: Reading | None, now: Reading | None) -> bool:
    # less than before is a change too: it counts anew
    return before is not None and now is not None and before != now


def _stillness(known: Progress) -> str:
    if known.last is None:
        return f"its counters did not answer in {known.still} looks"
    counted = f"stood at {known.last.finished:g} and {known.last.progress:g}"
    return f"no request finished and no token was made in {known.still} looks since (its counters {counted})"
