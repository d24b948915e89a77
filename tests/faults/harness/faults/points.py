"""A failpoint is armed: the first process that comes by kills or freezes itself right there."""

from __future__ import annotations

import json
import random
import secrets
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tests.faults.harness.failpoints import POINTS, Point
from tests.faults.harness.faults.base import Hit
from tests.faults.harness.stack import FaultyStack

#: Of our own code inside one act; one that ends sooner ends unharmed.
_MOST_LINES = {
    "line.launch": 260,
    "line.stop": 140,
    "line.end": 90,
    "line.health": 140,
    "line.judge": 200,
    "line.turn": 220,
    "line.reconcile": 260,
    "line.gang": 160,
}
#: Between taking an order and telling by whom.
_TELLS_S = 2.0


class ArmPoint:
    """Any point, or always the same one where the worst mistakes would show."""

    def __init__(
        self,
        name: str = "",
        number: signal.Signals | None = None,
        weight: int = 16,
        bait: Sequence[tuple[float, Mapping[str, Any]]] = (),
        among: Mapping[str, Point] = POINTS,
    ) -> None:
        """``bait`` are requests, each so long after the arming, that make sure that somebody comes by."""
        self._among = among
        self.weight = weight
        self.bait = bait
        self._name = name
        self._number = number

    def draw(self, rng: random.Random) -> Mapping[str, Any]:
        point = self._among[self._name or rng.choice(sorted(self._among))]
        freezes = self._number is signal.SIGSTOP if self._number else rng.random() < 0.4
        arguments: dict[str, Any] = {
            "point": point.name,
            "signal": int(signal.SIGSTOP if freezes else signal.SIGKILL),
            "role": rng.choice(point.roles),
            "line": rng.randint(1, _MOST_LINES.get(point.name, 200)) if point.when == "inside" else None,
        }
        if freezes:
            # a lease, a sweep, and what its successor does with the work
            arguments["for_s"] = round(rng.uniform(3.4, 4.6), 2)
        return arguments

    def inject(self, stack: FaultyStack, arguments: Mapping[str, Any]) -> Hit:
        name, token = arguments["point"], secrets.token_hex(4)
        draft = stack.folder / "armed" / f".{token}"
        draft.write_text(json.dumps({"token": token, **{key: arguments[key] for key in ("signal", "role", "line")}}))
        draft.chmod(0o666)
        draft.rename(stack.folder / "armed" / name)
        return {"point": name, "token": token}

    def heal(self, stack: FaultyStack, arguments: Mapping[str, Any], hit: Hit) -> None:
        deadline = time.monotonic() + _TELLS_S
        try:
            (stack.folder / "armed" / arguments["point"]).unlink()
        except FileNotFoundError:
            # somebody took it, perhaps this very moment: he still has to say who he is, and must not stay frozen
            while fired_by(stack, hit) is None and time.monotonic() < deadline:
                time.sleep(0.01)
        pid = fired_by(stack, hit)
        if pid is not None and arguments["signal"] == signal.SIGSTOP:
            # it may have come by late: what is frozen stays so for the whole time
            fired_at = (stack.folder / "fired" / f"{hit['token']}.pid").stat().st_mtime
            time.sleep(max(0.0, fired_at + arguments["for_s"] - time.time()))
            stack.send([pid], signal.SIGCONT)


def fired_by(stack: FaultyStack, hit: Hit) -> int | None:
    """The process that came by an armed point; None when nobody did."""
    try:
        return int((stack.folder / "fired" / f"{hit['token']}.pid").read_text().split()[0])
    except (FileNotFoundError, IndexError):
        return None
