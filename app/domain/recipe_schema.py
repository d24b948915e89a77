"""The one JSON Schema (2020-12) of recipes, as it is published, and that of what a request may set over a recipe."""

from __future__ import annotations

from typing import Any

DIALECT = "https://json-schema.org/draft/2020-12/schema"

#: (``$`` would let a line end pass.)
_END = r"(?![\s\S])"
NAME = rf"^[a-z0-9]([a-z0-9._-]{{0,61}}[a-z0-9])?{_END}"
_ENV_NAME = rf"^[A-Za-z_][A-Za-z0-9_]{{0,127}}{_END}"
_LABEL = rf"^[A-Za-z0-9]([A-Za-z0-9._/-]{{0,61}}[A-Za-z0-9])?{_END}"
_POOL = rf"^[a-z0-9]([a-z0-9-]{{0,61}}[a-z0-9])?{_END}"
SECRET_FILE = rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,99}}{_END}"
_DAYS_3660 = 3660 * 24 * 60
_YEAR_S = 366 * 86400


def _text(longest: int, description: str) -> dict[str, Any]:
    return {"type": "string", "maxLength": longest, "description": description}


def _whole(low: int, high: int, description: str) -> dict[str, Any]:
    return {"type": "integer", "minimum": low, "maximum": high, "description": description}


def _seconds(low: float, high: float, description: str) -> dict[str, Any]:
    return {"type": "number", "minimum": low, "maximum": high, "description": f"{description} Seconds."}


def _or_none(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "type": [schema["type"], "null"]}


def _object(about: str, /, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "description": about,
        "properties": properties,
    }


_SCALAR = {"type": ["string", "number", "boolean"], "maxLength": 32768}

RESOURCES = _object(
    "What one replica (with gpu_per_replica: all of them together) takes.",
    nodes=_whole(1, 1024, "Hosts that one replica spans; more than 1 only where the backend can."),
    cpu={"type": "number", "exclusiveMinimum": 0, "maximum": 65536, "description": "Cores."},
    memory={
        "type": "string",
        "pattern": rf"^[0-9]{{1,9}}(\.[0-9]{{1,3}})?([KMGT]i?)?B?{_END}",
        "description": "As 64G or 512M.",
    },
    gpu=_or_none(_whole(0, 1024, "GPUs; null or 0: CPU only.")),
    time_limit=_or_none(
        {"type": "number", "exclusiveMinimum": 0, "maximum": _DAYS_3660, "description": "Lifetime in minutes."}
    ),
)
READINESS = _object(
    "When it counts as ready.",
    path=_text(1000, "GET answers 2xx; only for engine command, the others know their own."),
    timeout_s=_seconds(0.001, _YEAR_S, "From its start until it must be ready."),
    start_timeout_s=_seconds(0.001, _YEAR_S, "Until it must be seen alive."),
    poll_interval_s=_seconds(0.001, 3600, "Between two looks."),
)
PROBES = _object(
    "How it is tried out.",
    timeout_s=_seconds(0.001, 3600, "Longest that one check may take."),
    run_diagnostics={"type": "boolean", "description": "Try it out before it counts as ready; default true."},
    diagnostics={"enum": ["readiness", "openai"], "description": "What is asked; only for engine command."},
)
GATEWAY = _object(
    "How the gateway treats its replicas.",
    max_concurrency=_whole(1, 100_000, "Requests at once; more wait."),
    drain_s=_seconds(0, 86400, "For requests in flight when it stops."),
)
UPDATE = _object(
    "How a new revision replaces the old one.",
    max_surge=_whole(0, 1000, "Replicas beyond the count meanwhile."),
    max_unavailable=_whole(0, 1000, "Replicas of the count that may be missing meanwhile."),
    progress_deadline_s=_seconds(1, _YEAR_S, "Without a step forward the update has failed."),
    auto_rollback={"type": "boolean", "description": "A failed update goes back to the last good revision."},
)
RESTART = _object(
    "How often a replica that fails is replaced.",
    tries=_whole(0, 1000, "Failures in a row before it is given up."),
    backoff_s=_seconds(0, 86400, "Before the second try; doubles with each."),
    backoff_max_s=_seconds(0, 86400, "Longest of these."),
    stable_s=_seconds(0, _YEAR_S, "Ready for so long, the count of failures begins anew."),
    unhealthy_s=_seconds(0, _YEAR_S, "Who is unhealthy for so long is replaced; 0: never."),
)
_POOL_SELECTOR = {
    "description": "Where it runs: a pool's name, or labels that the pool has. Default: the stack's default pool.",
    "oneOf": [
        {"type": "string", "pattern": _POOL},
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["name"],
            "properties": {"name": {"type": "string", "pattern": _POOL}},
        },
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["labels"],
            "properties": {
                "labels": {
                    "type": "object",
                    "minProperties": 1,
                    "maxProperties": 64,
                    "propertyNames": {"pattern": _LABEL},
                    "additionalProperties": {"type": "string", "maxLength": 255},
                }
            },
        },
    ],
}
_ENVIRONMENT = {
    "type": "object",
    "maxProperties": 200,
    "propertyNames": {"pattern": _ENV_NAME},
    "additionalProperties": _SCALAR,
}
_SECRETS = {
    "type": "object",
    "maxProperties": 64,
    "propertyNames": {"pattern": _ENV_NAME},
    "description": "Environment whose values are files of HOSTLER_SECRETS_DIR, read where the replica is launched.",
    "additionalProperties": {
        "type": "object",
        "additionalProperties": False,
        "required": ["file"],
        "properties": {
            "file": {"type": "string", "pattern": SECRET_FILE, "description": "Name of the file, no path."},
            "optional": {"type": "boolean", "description": "Launch without it when there is no such file."},
        },
    },
}
_LABELS = {
    "type": "object",
    "maxProperties": 63,
    "propertyNames": {"pattern": _LABEL},
    "additionalProperties": {"type": "string", "maxLength": 255},
    "description": "Labels of its replicas.",
}
_COMMAND = {
    "type": "array",
    "minItems": 1,
    "maxItems": 256,
    "items": _text(8192, "One word."),
    "description": "For engine command the whole argv, with {port}, {host}, {folder}, {model} and {model_name} filled"
    " in. For an engine whose program the operator installs: the words that start it, instead of the setting's.",
}
#: What both may say; a request lays its own over the recipe's.
_BOTH: dict[str, Any] = {
    "environment": {**_ENVIRONMENT, "description": "Environment of the engine."},
    "resources": RESOURCES,
    "gpu_per_replica": _or_none(
        _whole(1, 1024, "GPUs of each replica; resources.gpu // gpu_per_replica is the count.")
    ),
    "replicas": _whole(1, 1000, "How many, where gpu_per_replica does not say it. Default 1."),
    "pool": _POOL_SELECTOR,
    "engine_config": {"type": "object", "description": "The engine's own options (replica_config)."},
    "readiness": READINESS,
    "probes": PROBES,
    "gateway": GATEWAY,
    "capabilities": {"type": "object", "description": "What it can do, for the registry."},
    "labels": _LABELS,
    "priority": {"enum": ["p0", "p1", "p2", "p3"], "description": "p0 first."},
    "update": UPDATE,
    "restart": RESTART,
    "all_or_nothing": {"type": "boolean", "description": "All replicas come up, or none stays."},
    "successor_lead_s": _or_none(
        _seconds(0, _YEAR_S, "So long before its lifetime ends a replica's successor is started.")
    ),
    "command": _COMMAND,
    "image": _text(
        1000,
        "Image, for pools whose backend runs images (`docker`; `slurm` where the pool sets `apptainer`); others"
        " leave it out.",
    ),
    "secrets": _SECRETS,
}
#: Only a recipe's author or an admin decides over these.
ADMIN_KEYS = ("command", "image", "secrets")

_PARAMETER_VALUE = {"type": ["string", "number", "boolean"], "maxLength": 32768}
_PARAMETER = _object(
    "One thing that a request may set, by name or by its environment name.",
    type={"enum": ["string", "integer", "number", "boolean"]},
    description=_text(1000, "What it is, for people."),
    default=_PARAMETER_VALUE,
    required={"type": "boolean", "description": "A request must set it."},
    minimum={"type": "number"},
    maximum={"type": "number"},
    exclusive_minimum={"type": "number"},
    enum={"type": "array", "minItems": 1, "maxItems": 256, "items": _PARAMETER_VALUE},
    pattern=_text(1000, "Regular expression that the whole of a string must match."),
    max_length=_whole(1, 32768, "Longest string, in characters."),
    environment={"type": "string", "pattern": _ENV_NAME, "description": "The name by which environment sets it."},
    sets={
        "type": "string",
        "pattern": r"^(model|model_name|gateway\.max_concurrency|engine_config(\.[A-Za-z0-9_-]{1,64}){1,4}"
        rf"|environment\.[A-Za-z_][A-Za-z0-9_]{{0,127}}){_END}",
        "description": "What it sets: model (what is loaded), model_name (what requests call it), engine_config.KEY,"
        " environment.NAME or gateway.max_concurrency. Default: engine_config and its own name.",
    },
)
_PARAMETER["required"] = ["type"]

RECIPE: dict[str, Any] = {
    "$schema": DIALECT,
    "$id": "urn:hostler:schema:recipe",
    "title": "Hostler recipe",
    "description": "How a kind of inference server is brought into service. One file: <category>/<name>.yaml.",
    "type": "object",
    "additionalProperties": False,
    "required": ["engine"],
    "properties": {
        "name": {"type": "string", "pattern": NAME, "description": "As the file is called, without .yaml."},
        "category": {"type": "string", "pattern": NAME, "description": "As its folder is called."},
        "description": _text(2000, "One or two sentences for whoever chooses."),
        "version": _text(64, 'Of the recipe, in quotes: "1.0".'),
        "engine": {"type": "string", "pattern": NAME, "description": "What runs; see docs/engines.md."},
        "parameters": {
            "type": "object",
            "description": "What a request may set, by name. Each has `type`, `description`, `default` or `required`,"
            " `minimum`, `maximum`, `exclusive_minimum`, `enum`, `pattern`, `max_length`, `environment`, `sets`.",
            "maxProperties": 200,
            "propertyNames": {"pattern": rf"^[A-Za-z_][A-Za-z0-9_-]{{0,63}}{_END}"},
            "additionalProperties": _PARAMETER,
        },
        "ports": _object("Shown only: ports come from leases.", base=_whole(1, 65535, "First port that was in mind.")),
        **_BOTH,
    },
}

#: What a request may set over a recipe (``config``).
CONFIG: dict[str, Any] = {
    "$schema": DIALECT,
    "title": "What a request sets over a recipe",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        **_BOTH,
        "parameters": {
            "type": "object",
            "maxProperties": 200,
            "description": "Values of the recipe's parameters, by name.",
        },
        "base_port": _whole(1, 65535, "A wish: ports come from leases."),
    },
}
