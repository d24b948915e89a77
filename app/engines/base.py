"""What an engine must say about itself. An engine is pure: it plans, a backend runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from app.domain.endpoints import Endpoint
from app.engines.dialects.base import Dialect


@dataclass(frozen=True)
class EngineRequest:
    """Everything an engine may look at when it plans a launch.

    ``config`` is the replica's own wish: ``replica_config`` merged over the pool's and the model's defaults.
    ``host`` and ``port`` are placeholders (``app.domain.placeholders``) where they are known only where it runs.
    ``environment`` holds the user's variables, already checked against ``Engine.user_env``.
    ``engine_key`` is the stack-wide key that the engine must demand from callers, where it can.
    ``source`` is the catalogue's: a path, or a name on the hub. ``program`` is what starts an engine that Hostler does
    not bring (``Engine.program_setting``). ``gpus`` are leased to it. What it downloads belongs into ``cache_dir``.
    """

    model_name: str
    model_path: Path | None
    host: str
    port: int | str
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    engine_key: str = field(default="", repr=False)
    timeout_s: float = 120.0
    source: str = ""
    #: further names that requests may call the model by (aliases): an engine that checks the name must know them
    other_names: tuple[str, ...] = ()
    program: tuple[str, ...] = ()
    gpus: int = 0
    cache_dir: Path | None = None
    #: of ``Engine.upstream``: where its host is (None: nobody looked), and the PEM file of the authorities to trust
    #: (empty: the system's)
    addresses: tuple[str, ...] | None = None
    ca_file: str = ""
    #: of ``Engine.keeps_data``: the folder that is its own as long as its service or replica is known, on this host
    data_dir: Path | None = None


@dataclass(frozen=True)
class Command:
    """What a backend runs. ``env`` is complete but for PATH, HOME and the attempt's mark, which the backend adds.

    ``files`` are written (mode 0600) into the attempt's folder before the launch, by bare file name; ``{folder}``
    in argv and env values stands for that folder, ``{path}`` in PATH for the backend's own. Names in ``secret_env`` are
    masked wherever env is shown; of files only the names are. ``missing`` is what a user is told when there is no such
    program: what to install or to set.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict, repr=False)
    secret_env: frozenset[str] = frozenset()
    missing: str = ""


@dataclass(frozen=True)
class HttpCheck:
    """One request that shows whether the engine works. ``{model}`` in the body is the model's name.

    ``expect`` names what the answer must hold: ``status`` (2xx), ``json`` (parses), ``models`` (an OpenAI model
    list that is not empty), ``completion`` (an OpenAI completion with ``choices``), ``stream`` (an OpenAI stream
    with at least one token; time to first token and tokens/s are measured).
    """

    name: str
    path: str
    method: str = "GET"
    body: Mapping[str, Any] | None = None
    expect: str = "status"


@dataclass(frozen=True)
class Counters:
    """Where the engine counts its work, as Prometheus text, and by which names.

    ``finished`` grows when requests end well, ``progress`` also while they are worked on: what grows is busy, not hung.
    Each is a tuple of metric names whose values, over all labels, are summed. ``born_late``: it shows a counter only
    from the first time it counts, so one that is missing stands at 0.
    """

    path: str
    finished: tuple[str, ...]
    progress: tuple[str, ...]
    born_late: bool = False


@dataclass(frozen=True)
class ExitCause:
    """Why an engine ended. ``kind`` is ``launch_failed`` (it never ran) or ``out_of_memory``."""

    kind: Literal["launch_failed", "out_of_memory"]
    message: str


class Engine(Protocol):
    """One file per engine. The registry holds an instance; it keeps no state."""

    #: short name as stored with the model and the replica: ``llama-cpp``
    name: str
    #: one sentence for ``hostler`` users
    summary: str
    #: only role admin may run it (it runs what the user says)
    admin_only: bool
    #: whether a model file must exist on disk
    needs_model_file: bool
    #: whether a model's source may be a name on the hub or a folder (as transformers have it)
    takes_hub_model: bool
    #: whether requests for its model may go to it: it speaks OpenAI's API, or one like it. Others are reached by their
    #: service or replica alone, and no list of models shows them
    serves_models: bool
    #: whether what it was told must be there again after a restart: it gets ``EngineRequest.data_dir``, and a service
    #: of it has one replica, for two would be two stores
    keeps_data: bool
    #: whether several of it on several hosts make one replica: it tells leader from followers by ``HOSTLER_NODE_RANK``
    spans_hosts: bool
    #: the setting that holds the program to start; empty for what Hostler brings with it, as its value may be
    program_setting: str
    #: whether it checks ``engine_key`` on its API routes
    checks_key: bool
    #: paths that it answers without the key all the same, by its own rules: of health, counters
    open_paths: frozenset[str]
    #: environment names that any user may set (exact names; a trailing ``*`` is a prefix)
    user_env: frozenset[str]
    #: of those, the names whose values may be shown unmasked
    public_env: frozenset[str]
    #: JSON Schema of ``config``: what the engine understands in ``replica_config`` (others are kept and ignored).
    #: Properties marked ``x-admin`` need role admin, unless an admin set them for the pool or the model.
    config_schema: Mapping[str, Any]

    def validate(self, config: Mapping[str, Any]) -> dict[str, list[str]]:
        """Errors by field name (dotted below ``replica_config``); empty when all is well."""

    def upstream(self, config: Mapping[str, Any]) -> Endpoint | None:
        """Somebody else's server that it forwards to; None: it does the work itself."""

    def gpus_needed(self, config: Mapping[str, Any]) -> int | None:
        """GPUs that ``config`` is written for; None: as many as it is given."""

    def command(self, request: EngineRequest) -> Command:
        """The plan. Raises ``app.errors.InvalidConfig`` when the request cannot be run."""

    def readiness(self, config: Mapping[str, Any]) -> HttpCheck:
        """The probe that decides *ready* and, repeated, *healthy*. Must be cheap; is sent without the engine key."""

    def diagnostics(self, config: Mapping[str, Any]) -> tuple[HttpCheck, ...]:
        """What ``run_diagnostics`` does after readiness, in order."""

    def deep_probe(self, config: Mapping[str, Any]) -> HttpCheck | None:
        """The least work that shows more than that it listens: one token. None: there is no such thing."""

    def counters(self, config: Mapping[str, Any]) -> Counters | None:
        """Where its counters are, asked with the engine key; None when it has none."""

    def cause_of_exit(self, log_tail: str) -> ExitCause | None:
        """What its last lines say about an end before it was ready, where it is known better than "exited"."""

    def dialect(self, config: Mapping[str, Any]) -> Dialect | None:
        """How the model API asks it for tokens and text. None: it has no such API (embeddings, another protocol)."""

    def max_concurrency(self, config: Mapping[str, Any]) -> int | None:
        """Requests that it works on at once under this ``config``; more are better queued before it, where another
        replica may take them. None: no bound of its own. ``gateway_config.max_concurrency`` overrides it."""
