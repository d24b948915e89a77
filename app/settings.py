"""Every setting, read in this one place. Each field's metadata is its documentation (a test compares the docs).

Order of precedence: an explicit argument, the environment (``HOSTLER_*``), what the state dir holds, the default.
"""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from app.domain.endpoints import parse_allowance, parse_host
from app.domain.origins import parse_origins
from app.setting_fields import BadSetting as BadSetting
from app.setting_fields import absolute, check, command_line, level_name, llama_server, parse, placed, setting
from app.setting_fields import env_name as env_name

_POOL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
#: What may be done with what runs under our mark and has no record.
ORPHAN_POLICIES = ("report", "adopt", "kill")


@dataclass(frozen=True)
class Settings:
    """The settings of one process. Durations are seconds, sizes bytes."""

    state_dir: Path = setting(Path(), "Folder of everything the stack keeps (0700).")
    database_url: str = setting(
        "",
        "Postgres to use instead of the embedded one.",
        secret=True,
        form=r"postgres(ql)?(\+psycopg)?://.+",
        such_as="postgresql://USER:PASSWORD@HOST/DATABASE",
    )
    broker_url: str = setting(
        "",
        "Redis, Valkey or RabbitMQ to use instead of the embedded Redis.",
        secret=True,
        form=r"(rediss?|redis\+socket|sentinel|amqps?|pyamqp)://.+",
        such_as="redis://... or amqp://...",
    )
    namespace: str = setting(
        "",
        "Prefix in broker and node names; default: from the database's id.",
        form=r"[A-Za-z0-9_-]{1,60}",
        such_as="up to 60 letters, digits, - and _",
    )
    host: str = setting(
        "127.0.0.1",
        "Address of the gateway, the one public door.",
        form=r"[^\s/]+",
        such_as="an address or a host's name",
    )
    port: int = setting(8080, "Port of the gateway.", within=(1, 65535))
    url: str = setting("", "Where the CLI finds the API; default: through the state dir.")
    api_key: str = setting("", "Admin key to use instead of a made one (24+ characters).", secret=True)
    engine_key: str = setting(
        "",
        "Key that engines demand; default: made once, in the state dir.",
        secret=True,
        form=r"[!-~]{16,512}",
        such_as="16 or more ASCII characters without a space",
    )
    secret_key: str = setting(
        "",
        "Key that encrypts stored user values; default: made once.",
        secret=True,
        form=r"[A-Za-z0-9_-]{43}=",
        such_as="URL-safe base64 of 32 bytes",
    )
    tls_certificate: str = setting("", "PEM file; with tls_key the gateway speaks TLS.")
    tls_key: str = setting("", "PEM file of the certificate's key.")
    models_dir: Path = setting(Path(), "Folder whose GGUF files are models; default: <state>/models.")
    recipes_dir: Path = setting(Path(), "Folder of your own recipes, <category>/<name>.yaml; default: <state>/recipes.")
    secrets_dir: Path = setting(
        Path(),
        "Folder of the files (0600) that recipes name as secrets, on each host that launches; default:"
        " <state>/recipe-secrets.",
    )
    default_pool: str = setting(
        "local",
        "Pool of a create that names none.",
        form=_POOL,
        such_as="the name of a pool",
    )
    default_model: str = setting("", "Model of a request that names none.")
    chat_service: str = setting(
        "chat",
        "Service that answers /chat; while there is none, whatever serves the default model.",
        form=r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
        such_as="the name of a service",
    )
    chat_model_path: Path = setting(
        Path(),
        "GGUF file that the chat's workers load; without one and with chat_workers, the default model.",
        also="LLM_MODEL_PATH",
    )
    chat_workers: int = setting(
        0,
        "Workers of the service that `hostler up` keeps for the chat; 0: one with a chat_model_path, else none.",
        within=(0, 1000),
        also="LLM_WORKERS",
    )
    chat_key: str = setting(
        "",
        "Key of role infer that `hostler up` makes for the chat's callers (24+ characters).",
        secret=True,
        also="API_KEY",
    )
    chat_rate: float = setting(
        0.0,
        "Requests per second that each key may send to /chat; 0: any number. Below 1 it is one in several seconds.",
        within=(0, 1_000_000),
        also="RATE_LIMIT_QPS",
    )
    llama_command: str = setting(
        "",
        "A llama.cpp server of yours (llama-server), as one types it; default: the one in the wheel.",
        read_by=llama_server,
        also="LLM_BIN_PATH",
        also_read=shlex.quote,
    )
    cors_origins: str = setting(
        "",
        "Origins, between commas, whose pages may call the model API from a browser: https://app.example; *: any.",
        read_by=parse_origins,
    )
    ports: tuple[int, int] = setting((20000, 29999), "First and last port that engines may be given.")
    external_allow: str = setting(
        "",
        "Hosts (names, addresses, CIDRs) that engine openai-compatible may forward to; admins may name others.",
        read_by=parse_allowance,
    )
    external_ca: str = setting("", "PEM file of authorities for external servers, instead of the system's.")
    hf_endpoint: str = setting(
        "",
        "The hub that models are looked up on; default: huggingface_hub's own.",
        also="HF_ENDPOINT",
        form=r"https?://[^\s/@?#]+(/[^\s@?#]*)?",
        such_as="https://HOST without a name or password in it",
    )
    hf_token: str = setting(
        "",
        "Token for the hub, for models that it does not show to all; HF_TOKEN is read too.",
        secret=True,
        also="HF_TOKEN",
        form=r"[!-~]{1,512}",
        such_as="ASCII characters without a space",
    )
    vllm_command: str = setting(
        "vllm serve",
        "What starts vLLM, as one types it; found on the pool's PATH unless it is a path.",
        read_by=command_line,
    )
    sglang_command: str = setting(
        "python -m sglang.launch_server", "What starts SGLang, in the same way.", read_by=command_line
    )
    qdrant_command: str = setting("qdrant", "What starts Qdrant's server, in the same way.", read_by=command_line)
    node_name: str = setting(
        "",
        "Name of this host in the stack; default: the host's name.",
        form=r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?",
        such_as="a host's name",
    )
    node_address: str = setting(
        "127.0.0.1",
        "Address of this host on which engines listen and at which they are reached; a name is looked up once, at the"
        " start. Nobody elsewhere reaches a loopback address.",
        read_by=parse_host,
    )
    node_pools: str = setting(
        "",
        "Pools, between commas, whose work the workers of this host do; default: every pool's.",
        form=rf"{_POOL}(\s*,\s*{_POOL})*",
        such_as="names of pools between commas",
    )
    node_gpus: int = setting(-1, "GPUs of this host; -1 asks the driver.", within=(-1, 1024))
    max_wait_s: float = setting(300.0, "Longest wait of a request that waits.", within=(0, 86400))
    max_queued_per_pool: int = setting(20000, "Queued creates per pool; beyond it 429.", within=(0, 10_000_000))
    max_body_bytes: int = setting(1024 * 1024, "Largest request body of the control API.", within=(1024, 1 << 30))
    batch_concurrency: int = setting(8, "Items of one batch of the model API in work at once.", within=(1, 256))
    web_workers: int = setting(2, "Processes of the API.", within=(1, 256))
    worker_concurrency: int = setting(4, "Launches a worker carries out at once.", within=(1, 1024))
    control_concurrency: int = setting(2, "Stops and probes a control worker carries out at once.", within=(1, 1024))
    task_events: bool = setting(True, "Send Celery's events, which Flower shows.")
    flower_port: int = setting(
        0, "Loopback port on which Flower also listens; 0: none, it is at /flower/ of the gateway.", within=(0, 65535)
    )
    haproxy: str = setting("", "Program of HAProxy, 2.8 or newer; default: the wheel's, else the one on PATH.")
    max_body: int = setting(
        32 * 1024 * 1024, "Largest request body that the gateway lets in, in bytes.", within=(1024, 1 << 30)
    )
    gateway_threads: int = setting(0, "Threads of HAProxy; 0: one per core, eight at most.", within=(0, 256))
    gateway_connections: int = setting(
        0, "Connections the gateway holds at once; 0: as many as the open-file limit allows.", within=(0, 1_000_000)
    )
    gateway_routes: int = setting(
        500,
        "Routes that the gateway holds at once; routes with the same replicas count once.",
        within=(1, 10_000),
    )
    gateway_buffer_bytes: int = setting(
        24 * 1024,
        "HAProxy's buffers: a request whose body fits beside its headers takes the fast lane.",
        within=(16384, 1 << 20),
    )
    gateway_connect_s: float = setting(2.0, "Until a replica takes a connection; then another.", within=(0.05, 60))
    gateway_queue: int = setting(1000, "Requests that wait in a route's queue; beyond it 429.", within=(0, 1_000_000))
    gateway_queue_s: float = setting(
        30.0, "How long a request waits for a replica with room; then 503.", within=(0.05, 3600)
    )
    gateway_first_byte_s: float = setting(
        600.0, "Until the first byte of a replica's answer; then 504.", within=(0.1, 86400)
    )
    gateway_idle_s: float = setting(
        120.0,
        "Longest silence inside an answer that has begun; then it is cut. The agent looks every two seconds; 0: none,"
        " and gateway_first_byte_s ends it.",
        within=(0, 86400),
    )
    gateway_total_s: float = setting(
        0.0,
        "Longest a request may take in all; then it is cut. The agent looks every two seconds; 0: any time.",
        within=(0, 7 * 86400),
    )
    gateway_tunnel_s: float = setting(
        3600.0, "Longest silence of an upgraded connection (WebSocket) to a replica.", within=(1, 86400)
    )
    gateway_retries: int = setting(2, "Tries after the first: another replica, before the first byte.", within=(0, 20))
    gateway_check_s: float = setting(1.0, "Between two of the gateway's checks of a replica.", within=(0.1, 60))
    gateway_error_limit: int = setting(
        10, "Errors of a replica in a row (5xx, broken connections) that count as one failed check.", within=(1, 1000)
    )
    gateway_fall: int = setting(2, "Failed checks in a row that take a replica out.", within=(1, 100))
    gateway_all_out: str = setting(
        "refuse",
        "When checks have taken every replica of a route out: refuse (503), or try one of them all the same.",
        one_of=("refuse", "try"),
    )
    slow_lane_bytes: int = setting(
        128 * 1024 * 1024, "Memory for bodies that are parsed, in each of two processes.", within=(1 << 20, 1 << 40)
    )
    slow_lane_queue: int = setting(
        100, "Requests that wait for room in the slow lane, in each process; beyond it 429.", within=(0, 100_000)
    )
    slow_lane_body_s: float = setting(
        120.0, "How long a body may take to arrive in the slow lane; then 408.", within=(1, 3600)
    )
    lease_s: float = setting(15.0, "How long a worker's claim holds without renewal.", within=(1, 3600))
    probe_interval_s: float = setting(5.0, "Between two health probes of a ready replica.", within=(0.05, 3600))
    unhealthy_after: int = setting(3, "Failed probes in a row until a replica is unhealthy.", within=(1, 1000))
    deep_probe_s: float = setting(
        300.0,
        "Between two deep probes (one token) of a replica that finished no request meanwhile; 0: none.",
        within=(0, 86400),
    )
    orphans: str = setting(
        "report",
        "What runs under our mark and has no record is: report(ed), adopt(ed) where it can be, or kill(ed).",
        one_of=ORPHAN_POLICIES,
    )
    drain_s: float = setting(
        30.0,
        "What a stopping replica gets to finish the requests in flight, unless it or the stop says otherwise.",
        within=(0, 86400),
    )
    gateway_silence_s: float = setting(
        86400.0,
        "A gateway not heard of for so long is declared gone, and ports that it may still route to are given away.",
        within=(60, 31_536_000),
    )
    sweep_interval_s: float = setting(5.0, "Between two ticks of the repair sweep.", within=(0.1, 3600))
    look_s: float = setting(
        0.3, "How long a create looks for readiness before it leaves that to the sweep.", within=(0, 60)
    )
    log_bytes: int = setting(16 * 1024 * 1024, "Output kept per attempt, in two files.", within=(4096, 1 << 40))
    register_allow: str = setting(
        "127.0.0.0/8,::1,localhost",
        "Hosts and networks whose servers may be registered: names, addresses and CIDRs between commas.",
        form=r"[A-Za-z0-9._:/,\[\] -]*",
        such_as="names, addresses and CIDRs between commas",
    )
    register_lease_s: float = setting(
        15.0,
        "How long a registration may outlive a network that was cut without a word (from 7 s on: a keep-alive is 5 s).",
        within=(1, 3600),
    )
    register_grace_s: float = setting(
        30.0,
        "How long, beyond the lease, registrations outlive a process of the API: until their servers are back.",
        within=(0, 86400),
    )
    max_registrations: int = setting(20_000, "Registered servers; beyond it 429.", within=(0, 1_000_000))
    retention_days: float = setting(
        30.0, "How long what has ended is kept: see docs/operations.md, Retention.", within=(0.0001, 36500)
    )
    log_level: str = setting(
        "info",
        "debug, info, warning or error.",
        one_of=("debug", "info", "warning", "error"),
        also="LOG_LEVEL",
        also_read=level_name,
    )
    log_format: str = setting("plain", "plain for people, json for collectors.", one_of=("plain", "json"))

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
        """Settings from ``environ`` (default: the process's), then ``overrides`` that are not None.

        Raises BadSetting for a value that does not parse or cannot be.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        said_by: dict[str, str] = {}
        for item in fields(cls):
            also = item.metadata["also"]
            raw = environ.get(env_name(item.name), "")
            if raw == "" and also and environ.get(also):
                raw, said_by[item.name] = item.metadata["also_read"](environ[also]), also
            if raw != "":
                variable = said_by.get(item.name, env_name(item.name))
                values[item.name] = parse(variable, raw, item.default)
        values.update({name: value for name, value in overrides.items() if value is not None})
        settings = cls(**values)
        for item in fields(cls):
            check(item, getattr(settings, item.name), said_by.get(item.name, env_name(item.name)))
        try:
            parse_allowance(settings.register_allow)
        except ValueError as error:
            raise BadSetting(f"HOSTLER_REGISTER_ALLOW: {error}; an example: 10.0.0.0/8,gpu1.example") from error
        state_dir = Path(settings.state_dir) if settings.state_dir != Path() else default_state_dir(environ)
        state_dir = Path(os.path.abspath(state_dir.expanduser()))
        models_dir = settings.models_dir if settings.models_dir != Path() else state_dir / "models"
        recipes_dir = settings.recipes_dir if settings.recipes_dir != Path() else state_dir / "recipes"
        secrets_dir = settings.secrets_dir if settings.secrets_dir != Path() else state_dir / "recipe-secrets"
        return replace(
            settings,
            state_dir=state_dir,
            models_dir=Path(os.path.abspath(models_dir)),
            recipes_dir=Path(os.path.abspath(recipes_dir)),
            secrets_dir=Path(os.path.abspath(secrets_dir)),
            # processes that are started work in other folders
            tls_certificate=os.path.abspath(settings.tls_certificate) if settings.tls_certificate else "",
            tls_key=os.path.abspath(settings.tls_key) if settings.tls_key else "",
            vllm_command=placed(settings.vllm_command),
            sglang_command=placed(settings.sglang_command),
            qdrant_command=placed(settings.qdrant_command),
            llama_command=placed(settings.llama_command) if settings.llama_command else "",
            chat_model_path=absolute(settings.chat_model_path),
            external_ca=os.path.abspath(settings.external_ca) if settings.external_ca else "",
            node_name=settings.node_name or socket.gethostname().split(".")[0],
        )


def pools_served(settings: Settings) -> list[str] | None:
    """The pools that the workers of this host serve, sorted; None: all of them."""
    names = {name.strip() for name in settings.node_pools.split(",")} - {""}
    return sorted(names) or None


#: Every stream of a registration is sent something so often.
REGISTERED_ALIVE_S = 5.0


def registered_silence_s(settings: Settings) -> float:
    """How long what was sent to a registrar may go unacknowledged.

    With the wait for something to be sent before it, and a second for the news to get around, it is the lease.
    """
    return max(1.0, settings.register_lease_s - REGISTERED_ALIVE_S - 1.0)


def default_state_dir(environ: Mapping[str, str]) -> Path:
    """``$XDG_STATE_HOME/hostler``, else ``~/.local/state/hostler``."""
    base = environ.get("XDG_STATE_HOME") or str(Path(environ.get("HOME") or "~").expanduser() / ".local" / "state")
    return Path(base) / "hostler"
