"""Every fault the harness knows, by name. A new one is one file and one line here."""

from __future__ import annotations

from signal import SIGKILL, SIGSTOP

from tests.faults.harness.acts import plain_create, plain_stop
from tests.faults.harness.failpoints import DOOR_POINTS, SERVICE_POINTS
from tests.faults.harness.faults.base import Fault
from tests.faults.harness.faults.clock import LEAPS_S, ShiftClock
from tests.faults.harness.faults.crowd import CrowdDatabase
from tests.faults.harness.faults.cuts import CutBroker, CutDatabase
from tests.faults.harness.faults.disk import FillDisk
from tests.faults.harness.faults.points import ArmPoint
from tests.faults.harness.faults.postgres import FreezePostgres, RestartPostgres
from tests.faults.harness.faults.power_cut import PowerCut
from tests.faults.harness.faults.recipes import SpoilRecipe
from tests.faults.harness.faults.redis import FlushRedis, RestartRedis
from tests.faults.harness.faults.reused_pid import ReusePid
from tests.faults.harness.faults.signals import DOOR_RESTARTED, DOOR_TARGETS, RECONCILERS, Freeze, Kill, Restart
from tests.faults.harness.services import plain_gang, plain_patch, plain_scale, plain_service

#: Launched at once; found ready by the agent, and then asked to end while that one's verdict is still to be written.
_LAUNCHED = ((0.05, plain_create("bait-launched")),)
_JUDGED = ((0.05, plain_create("bait-judged", startup_s=0.8, stop_s=6)), (1.8, plain_stop("bait-judged", 2)))

#: Routed, and taken out again: its server is gone from HAProxy when its row goes.
_ROUTED = ((0.05, plain_create("bait-routed")), (1.3, plain_stop("bait-routed", 0)))

#: Made, scaled and changed: somebody has to act on it all the time.
_SERVED = (
    (0.05, plain_service("bait-served", 2)),
    (0.6, plain_scale("bait-served", 4)),
    (1.2, plain_patch("bait-served")),
)
#: They cannot be asked for a while, which is no death.
_SILENT = ((0.05, plain_service("bait-silent", 2, unreachable_after_s=0.6, unreachable_for_s=4)),)
#: All of it at once or nothing.
_GANG = ((0.05, plain_gang("bait-gang", 3)),)

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

#: What breaks between what a service should be and what it is: beside the others, by chances of its own too.
SERVICES: dict[str, Fault] = {
    "service-point": ArmPoint(among=SERVICE_POINTS),
    "killed-maker": ArmPoint("reconcile.made.after", SIGKILL, 3, _SERVED, SERVICE_POINTS),
    "frozen-maker": ArmPoint("reconcile.joined.after", SIGSTOP, 3, _SERVED, SERVICE_POINTS),
    "untold": ArmPoint("reconcile.tell.before", SIGKILL, 3, _SERVED, SERVICE_POINTS),
    "frozen-gang": ArmPoint("gang.leased", SIGSTOP, 3, _GANG, SERVICE_POINTS),
    "killed-gang": ArmPoint("gang.take.after", SIGKILL, 3, _GANG, SERVICE_POINTS),
    "kill-reconciler": Kill(RECONCILERS),
    "freeze-reconciler": Freeze(RECONCILERS),
    "spoil-recipe": SpoilRecipe(),
    "killed-watcher": ArmPoint("judge.moves.after", SIGKILL, 3, _SILENT),
}

#: What takes longer than a seed of CI may: drawn beside the others, by seeds after the first 20.
RARE: dict[str, Fault] = {
    "power-cut": PowerCut(),
    "crowd-database": CrowdDatabase(),
    "clock-leap": ShiftClock(LEAPS_S, weight=2),
}
