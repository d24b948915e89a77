"""Looks at Postgres, the process table, the ports and the journal, and says what should not be.

It shares no code with the product: nothing here imports ``app``, ``workers`` or ``hostler``. What it knows of them it
has from their documents: the schema, the API, the lifecycle diagram of the README, and the folder of an attempt.
"""

from __future__ import annotations

from tests.faults.harness.checker.evidence import gather
from tests.faults.harness.checker.registry import CHECKS
from tests.faults.harness.facts import Finding, RunFacts
from tests.faults.harness.recorders import recording as recording


def check(run: RunFacts) -> list[Finding]:
    """Everything that is wrong after this seed; empty when all is as promised."""
    found = gather(run)
    return [finding for one in CHECKS for finding in one(found)]
