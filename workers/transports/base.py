"""How a backend reaches the host on which it gives its commands: here, or over SSH."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

#: More output than this of one command is an error: nothing that we ask answers with so much.
MOST_OUTPUT_BYTES = 16 * 1024 * 1024


class TransportError(Exception):
    """The host cannot be reached, or its answer did not come whole: nothing is known about what was done there."""


@dataclass(frozen=True)
class Completed:
    """How one command ended there. ``code`` is its exit status (128 + number for a signal)."""

    code: int
    stdout: bytes = field(repr=False)
    stderr: bytes = field(repr=False)


class Transport(Protocol):
    """One host. Instances may be used by several threads; they hold no connection that a fork could share."""

    #: for messages: ``this host``, ``login1 (ssh)``
    name: str

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 10) -> Completed:
        """Run a program there, found by its PATH there, with ``stdin``; no shell looks at ``argv``.

        Secrets go in by ``stdin``, for other users can read argv. Raises TransportError, also when time ran out:
        then it may still run there.
        """
