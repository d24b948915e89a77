"""Every fault the harness knows, by name. A new one is one file and one line here."""

from __future__ import annotations

from signal import SIGKILL, SIGSTOP

from tests.faults.harness.acts import plain_create, plain_stop
from tests.faults.harness.failpoints import DOOR_POINTS
from tests.faults.harness.faults.base import Fault
from tests.faults.harness.faults.clock import LEAPS_S, ShiftClock
from tests.faults.harness.faults.crowd import CrowdDatabase
from tests.faults.harness.faults.cuts import CutBroker, CutDatabase
from tests.faults.harness.faults.disk import FillDisk
from tests.faults.harness.faults.points import ArmPoint
from tests.faults.harness.faults.postgres import FreezePostgres, RestartPostgres
from tests.faults.harness.faults.power_cut import PowerCut
from tests.faults.harness.faults.redis import FlushRedis, RestartRedis
from tests.faults.harness.faults.reused_pid import ReusePid
from tests.faults.harness.faults.signals import DOOR_RESTARTED, DOOR_TARGETS, Freeze, Kill, Restart

#: Launched at once; found ready by the agent, and then asked to end while that one's verdict is still to be written.
_LAUNCHED = ((0.05, plain_create("bait-launched")),)
_JUDGED = ((0.05, plain_create("bait-judged", startup_s=0.8, stop_s=6)), (1.8, plain_stop("bait-judged", 2)))

#: Routed, and taken out again: its server is gone from HAProxy when its row goes.
_ROUTED = ((0.05, plain_create("bait-routed")), (1.3, plain_stop("bait-routed", 0)))

FAULTS: dict[str, Fault] = {
    "kill": Kill(),
    "freeze": Freeze(),
    "restart": Restart(),
    "failpoint": ArmPoint(),
    "frozen-launch": ArmPoint("launch.adopt.after", SIGSTOP, 3, _LAUNCHED),
    "killed-launch": ArmPoint("launch.process.after", SIGKILL, 3, _LAUNCHED),
    "frozen-verdict": ArmPoint("judge.moves.before", SIGSTOP, 3, _JUDGED),
    "postgres": RestartPostgres(),
    "freeze-postgres": FreezePostgres(),
    "flush-redis": FlushRedis(),
    "redis": RestartRedis(),
    "cut-database": CutDatabase(),
    "cut-broker": CutBroker(),
    "clock": ShiftClock(),
    "disk": FillDisk(),
    "reused-pid": ReusePid(),
}

#: What breaks between a model and who asks it: beside the others, by chances of its own.
DOOR: dict[str, Fault] = {
    "kill-door": Kill(DOOR_TARGETS),
    "freeze-door": Freeze(DOOR_TARGETS),
    "restart-door": Restart(DOOR_RESTARTED),
    "door-point": ArmPoint(among=DOOR_POINTS),
    "frozen-confirm": ArmPoint("route.let_go.after", SIGSTOP, 3, _ROUTED, DOOR_POINTS),
}

#: What takes longer than a seed of CI may: drawn beside the others, by seeds after the first 20.
RARE: dict[str, Fault] = {
    "power-cut": PowerCut(),
    "crowd-database": CrowdDatabase(),
    "clock-leap": ShiftClock(LEAPS_S, weight=2),
}
