"""Who watches while things break: event streams kept open, the process table held against the leases, and
HAProxy against both.

They belong to the checker and import nothing of the product.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults.harness.facts import StackFacts
from tests.faults.harness.recorders.routes import Routes
from tests.faults.harness.recorders.sightings import Sightings
from tests.faults.harness.recorders.streams import Streams


@contextmanager
def recording(stack: StackFacts) -> Iterator[None]:
    """Streams, sightings and routes, each in its ``.jsonl``, for as long as the stack serves."""
    recorders = (Streams(stack), Sightings(stack), Routes(stack))
    for recorder in recorders:
        recorder.start()
    try:
        yield
    finally:
        for recorder in recorders:
            recorder.stop()
