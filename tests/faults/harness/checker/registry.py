"""Every check, one line each. A check takes the evidence and yields what should not be."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.faults.harness.checker.answers import check_answers
from tests.faults.harness.checker.convergence import check_convergence
from tests.faults.harness.checker.door import check_door
from tests.faults.harness.checker.evidence import Evidence
from tests.faults.harness.checker.history import check_history
from tests.faults.harness.checker.keys import check_keys
from tests.faults.harness.checker.launches import check_launches
from tests.faults.harness.checker.leases import check_leases
from tests.faults.harness.checker.leftovers import check_leftovers
from tests.faults.harness.checker.logs import check_logs
from tests.faults.harness.checker.outcomes import check_outcomes
from tests.faults.harness.checker.places import check_places
from tests.faults.harness.checker.processes import check_processes
from tests.faults.harness.checker.routes import check_routes
from tests.faults.harness.checker.services import check_services
from tests.faults.harness.checker.strangers import check_strangers
from tests.faults.harness.checker.streams import check_streams
from tests.faults.harness.checker.tasks import check_tasks
from tests.faults.harness.checker.transitions import check_transitions
from tests.faults.harness.facts import Finding

Check = Callable[[Evidence], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    check_answers,
    check_outcomes,
    check_keys,
    check_convergence,
    check_tasks,
    check_transitions,
    check_streams,
    check_leases,
    check_history,
    check_processes,
    check_launches,
    check_places,
    check_leftovers,
    check_logs,
    check_strangers,
    check_door,
    check_routes,
    check_services,
)
