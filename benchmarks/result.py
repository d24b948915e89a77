"""What a benchmark says: ours, what it stands beside, the ratio, the goal, and whether the goal is met."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

ROUNDS = 3


@dataclass(frozen=True)
class Pair:
    """The samples of ours and of the floor, one of each per round."""

    ours: tuple[float, ...]
    floor: tuple[float, ...]

    @property
    def medians(self) -> tuple[float, float]:
        return statistics.median(self.ours), statistics.median(self.floor)

    @property
    def ratio(self) -> float:
        ours, floor = self.medians
        return ours / floor if floor else float("inf")


@dataclass(frozen=True)
class Result:
    """One line of the report. ``notes`` say what was pinned and warmed, and why the load was not the limit."""

    name: str
    ours: float
    floor: float
    ratio: float
    goal: str
    ok: bool
    unit: str
    rounds: int
    notes: dict[str, Any] = field(default_factory=dict)
    parts: tuple[Result, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The object that is printed last."""
        body: dict[str, Any] = {
            "name": self.name,
            "ours": round(self.ours, 3),
            "floor": round(self.floor, 3),
            "ratio": round(self.ratio, 3),
            "goal": self.goal,
            "ok": self.ok,
            "unit": self.unit,
            "rounds": self.rounds,
        }
        if self.notes:
            body["notes"] = self.notes
        if self.parts:
            body["parts"] = [part.to_json() for part in self.parts]
        return body


def alternate(ours: Callable[[], float], floor: Callable[[], float], rounds: int) -> Pair:
    """Run both ``rounds`` times, each first in turn, so that drift of the machine hits both alike."""
    samples: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        order = ((0, ours), (1, floor)) if number % 2 == 0 else ((1, floor), (0, ours))
        for place, measure in order:
            samples[place].append(measure())
    return Pair(tuple(samples[0]), tuple(samples[1]))


def result(name: str, pair: Pair, *, unit: str, goal: str, ok: bool, **notes: Any) -> Result:
    """A Result from a pair, with the samples of every round in its notes."""
    ours, floor = pair.medians
    samples = {"ours_rounds": _rounded(pair.ours), "floor_rounds": _rounded(pair.floor)}
    return Result(name, ours, floor, pair.ratio, goal, ok, unit, len(pair.ours), {**samples, **notes})


def joined(name: str, parts: Sequence[Result]) -> Result:
    """Several results under one name: the first part's numbers stand for it, and it is ok when all are."""
    head = parts[0]
    ok = all(part.ok for part in parts)
    return Result(
        name, head.ours, head.floor, head.ratio, head.goal, ok, head.unit, head.rounds, head.notes, tuple(parts)
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0..1) of the values lie; nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 3) for value in values]
