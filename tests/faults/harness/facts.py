"""What the driver and the checker tell each other. Neutral ground: neither side's code, and nothing of the product."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class PlaceFacts:
    """How the parts of other places are asked, by their own means; None where this machine lacks them.

    ``prefix`` begins the names of all attempts of the stack. All parts run on this very host, so its process table
    shows what runs in them: by ``HOSTLER_MARK``, the name of its attempt, as that of the stack's own engines does.
    """

    prefix: str
    slurm_conf: Path | None = None
    podman_socket: Path | None = None
    #: node of the stack that is another host by its own words, and its state dir
    node: str = ""
    node_state_dir: Path | None = None


@dataclass(frozen=True)
class StackFacts:
    """One running stack. It serves many seeds; a stack that is broken for good gets a successor in another folder.

    ``folder`` holds what the harness writes: ``journal.jsonl`` (driver), ``streams.jsonl`` (recorder), ``starts/``.
    ``starts/<attempt name>`` has one line ``<pid> <kind>`` for each start of an engine of that attempt, ``kind`` being
    ``process`` or ``mock``, or of a cluster ``run-<n> job-<id>``, which may be begun anew with the next ``n``; it is
    appended by the engine itself (a shell that becomes it), before it does anything.
    ``database_url`` is ``postgresql://...`` for libpq. ``state_dir`` is the product's.
    """

    folder: Path
    state_dir: Path
    database_url: str
    url: str
    api_key: str = field(repr=False)
    #: where HAProxy itself says what it routes to
    haproxy_socket: Path = Path("/nonexistent")
    #: None for a stack that runs on this host only
    places: PlaceFacts | None = None


@dataclass(frozen=True)
class RunFacts:
    """One seed on one stack, after its faults ended and it had its time to converge.

    ``begun_at`` and ``faults_ended_at`` are unix seconds of this host's clock; ``hostler_now()`` may have been shifted
    meanwhile, so rows are told apart by ``after_event`` and ``after_task``: the greatest ``events.id`` and
    ``tasks.seq`` before the seed. ``converged`` says whether the driver saw nothing in motion within its 30 s.
    """

    stack: StackFacts
    seed: int
    begun_at: float
    faults_ended_at: float
    after_event: int
    after_task: int
    converged: bool

    @property
    def folder(self) -> Path:
        return self.stack.folder

    @property
    def database_url(self) -> str:
        return self.stack.database_url

    @property
    def state_dir(self) -> Path:
        return self.stack.state_dir


@dataclass(frozen=True)
class Finding:
    """One thing that should not be. ``rule`` is a short name, ``text`` a sentence, ``evidence`` ids and rows."""

    rule: str
    text: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
