"""A recipe under a request: every field is checked, all that is wrong is told at once, and what is left is a create."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePath
from typing import Any

from sqlalchemy import Connection, text

from app.domain import recipes as domain
from app.domain.environment import WISHES, check_environment
from app.domain.masking import MASK, mask, name_matches, sounds_secret
from app.domain.modes import ENGINE_BY_MODE, ServerMode
from app.domain.recipe_schema import ADMIN_KEYS, CONFIG
from app.domain.recipes import MODEL, MODEL_NAME, Parameter, Recipe
from app.domain.services.desired import Restart, Update
from app.engines.base import Engine
from app.engines.hub import is_path
from app.engines.registry import ENGINES
from app.engines.schema import check, for_admins
from app.errors import Contradiction, Forbidden, HostlerError, InvalidConfig, UnknownPool
from app.usecases import plans
from app.usecases.context import Actor, Context
from app.usecases.recipe_check import engine_config, unknown_members

_LONGEST_NAME = 200


@dataclass(frozen=True)
class Rendered:
    """What a recipe comes to. ``body`` is what ``creates.request_create`` takes for one member.

    ``asked`` is the request's config as it may be shown and stored: environment values masked.
    """

    recipe: str
    version: str
    body: dict[str, Any]
    count: int
    all_or_nothing: bool
    update: dict[str, Any]
    restart: dict[str, Any]
    successor_lead_s: float | None
    asked: dict[str, Any]
    warnings: list[str] = field(default_factory=list)


def rendered(
    ctx: Context,
    actor: Actor,
    recipe: Recipe,
    config: Mapping[str, Any],
    *,
    replicas: int | None = None,
    pool: str | None = None,
    model_name: str | None = None,
) -> Rendered:
    """See ``recipes.render``."""
    work = _Rendering(ctx, actor, recipe, config)
    work.read(model_name)
    return work.finish(replicas, pool)


class _Rendering:
    """One rendering. ``errors`` are kept by the field as the request wrote it, until all are known."""

    def __init__(self, ctx: Context, actor: Actor, recipe: Recipe, config: Mapping[str, Any]) -> None:
        self.ctx, self.actor, self.recipe = ctx, actor, recipe
        self.engine: Engine = ENGINES[recipe.engine]
        self.admin = actor.role == "admin"
        self.asked: dict[str, Any] = domain.read_numbers(config, CONFIG)
        self.errors: dict[str, list[str]] = {}
        self.warnings: list[str] = []
        self.values: dict[str, Any] = {}
        #: where the request set a parameter, by the parameter's name
        self.said_at: dict[str, str] = {}
        self.settings: dict[str, Any] = {}
        self.own_environment: dict[str, Any] = {}

    def read(self, model_name: str | None) -> None:
        """Form first, then parameters and environment, then the whole laid over the recipe."""
        self._check_form()
        if self.errors:
            raise self._invalid()
        self._read_parameters()
        self._read_model_name(model_name)
        above = {
            name: value for name, value in self.asked.items() if name not in ("environment", "parameters", "base_port")
        }
        self.settings = domain.merged(self.recipe.settings, {**above, "environment": self.own_environment})
        self._check_parameters()
        if self.asked.get("base_port") is not None:
            self.warnings.append("base_port is a wish: each replica's port comes from its lease.")

    def finish(self, replicas: int | None, pool: str | None) -> Rendered:
        count, gpus = self._counted(replicas)
        config = self._engine_config(gpus)
        if self.errors:
            raise self._invalid()
        with self.ctx.database.read() as connection:
            body = self._body(connection, config, gpus, pool)
            self._rehearse(connection, body)
        settings = self.settings
        return Rendered(
            recipe=self.recipe.full_name,
            version=self.recipe.version,
            body=body,
            count=count,
            all_or_nothing=bool(settings.get("all_or_nothing", False)),
            update={**asdict(Update()), **(settings.get("update") or {})},
            restart={**asdict(Restart()), **(settings.get("restart") or {})},
            successor_lead_s=settings.get("successor_lead_s"),
            asked=self._shown(),
            warnings=self.warnings,
        )

    def _fail(self, field_name: str, message: str) -> None:
        self.errors.setdefault(field_name, []).append(message)

    def _invalid(self) -> InvalidConfig:
        first = next(iter(self.errors))
        more = f" {len(self.errors) - 1} more fields are wrong." if len(self.errors) > 1 else ""
        told = f"{self.recipe.full_name}: {first}: {self.errors[first][0]}{more}"
        return InvalidConfig(told, errors=self.errors)

    def _check_form(self) -> None:
        known = CONFIG["properties"]
        plain = {name: value for name, value in self.asked.items() if value is not None}
        for name in [name for name in plain if name not in known]:
            self._fail(f"config.{name}", "Unknown." + _near(name, known))
        for field_name, messages in check(_without_nulls(plain), CONFIG).items():
            if field_name in self.asked and field_name not in known:
                continue
            for one in messages:
                self._fail(f"config.{field_name}" if field_name else "config", _told(field_name, one))
        for name in ADMIN_KEYS:
            if self.asked.get(name) is not None and not self.admin:
                raise Forbidden(
                    f"config.{name} needs a key of role admin, or a recipe that says it.",
                    errors={f"config.{name}": ["Needs role admin."]},
                )

    def _read_parameters(self) -> None:
        """Values by the parameter's name, from ``parameters`` and from the environment names that set them."""
        by_name = {one.name: one for one in self.recipe.parameters}
        by_environment = self.recipe.by_environment()
        for name, value in (self.asked.get("parameters") or {}).items():
            if name not in by_name:
                self._fail(f"config.parameters.{name}", "Unknown parameter." + _near(name, by_name))
                continue
            self._take(by_name[name], value, f"config.parameters.{name}")
        for name, value in (self.asked.get("environment") or {}).items():
            parameter = by_environment.get(name)
            if parameter is not None:
                self._take(parameter, value, f"config.environment.{name}")
            else:
                self._take_environment(name, value, by_environment)

    def _take(self, parameter: Parameter, value: Any, where: str) -> None:
        if value is None:
            self.values.setdefault(parameter.name, None)
            self.said_at.setdefault(parameter.name, where)
            return
        found, problem = domain.read_value(parameter, value)
        problem = problem or domain.value_problem(parameter, found)
        if problem:
            self._fail(where, problem)
            return
        if parameter.name in self.values and self.values[parameter.name] != found:
            other = self.said_at[parameter.name]
            told = "Both set the same parameter, to different values."
            raise Contradiction(f"{other}, {where}: {told}", errors={other: [told], where: [told]})
        self.values[parameter.name], self.said_at[parameter.name] = found, where

    def _take_environment(self, name: str, value: Any, parameters: Iterable[str]) -> None:
        own = self.recipe.settings.get("environment") or {}
        if name in WISHES:
            if value is not None:
                self.warnings.append(f"{name} is a wish: {WISHES[name]}.")
            return
        allowed = {*self.engine.user_env, *(own if self.admin else ())}
        if value is None and name in own and name_matches(name, allowed):
            self.own_environment[name] = None
            return
        listed = name_matches(name, allowed)
        wrong = check_environment({name: domain.environment_text(value or "")}, allowed, admin=self.admin and listed)
        if wrong:
            known = [*parameters, *(one for one in allowed if not one.endswith("*"))]
            near = _near(name, known)
            why = (
                ""
                if listed
                else f"Neither a parameter of this recipe nor a name that users of engine {self.engine.name} may set."
            )
            self._fail(f"config.environment.{name}", (why or wrong[f"environment.{name}"][0]) + near)
        elif value is not None:
            self.own_environment[name] = domain.environment_text(value)

    def _read_model_name(self, model_name: str | None) -> None:
        """A request's ``model_name`` is the model too, unless it says which one apart from that."""
        if model_name is None:
            return
        model = next((one for one in self.recipe.parameters if one.sets == MODEL), None)
        named = next((one for one in self.recipe.parameters if one.sets == MODEL_NAME), None)
        if model is not None and model.name not in self.said_at:
            self._take(model, model_name, "model_name")
        if named is not None and named.name in self.said_at and self.values[named.name] != model_name:
            told = "Both say what requests call the model."
            where = self.said_at[named.name]
            raise Contradiction(f"model_name, {where}: {told}", errors={"model_name": [told], where: [told]})
        self.model_name: str | None = model_name

    model_name: str | None = None

    def _check_parameters(self) -> None:
        for one in self.recipe.parameters:
            if self.values.get(one.name) is None and one.name not in self.values and one.default is not None:
                self.values[one.name] = domain.read_value(one, one.default)[0]
            if self.values.get(one.name) is None and one.required:
                by = f" or config.environment.{one.environment}" if one.environment else ""
                self._fail(f"config.parameters.{one.name}", f"Is required: {one.description} Set it{by}.")

    def _counted(self, replicas: int | None) -> tuple[int, int]:
        """(how many, GPUs of each); what does not come out even is told."""
        settings, resources = self.settings, self.settings.get("resources") or {}
        gpus, per_replica = int(resources.get("gpu") or 0), settings.get("gpu_per_replica")
        if (resources.get("nodes") or 1) != 1:
            self._fail("config.resources.nodes", "Must be 1: no backend spans one replica over several hosts.")
        asked_for_each = self.asked.get("gpu_per_replica")
        if asked_for_each and not gpus:
            self._fail(
                "config.gpu_per_replica",
                f"Is {asked_for_each}, and resources.gpu is none. Ask for GPUs, or leave it out.",
            )
        if per_replica and 0 < gpus < per_replica:
            where = "config.gpu_per_replica" if asked_for_each else "config.resources.gpu"
            self._fail(where, f"{gpus} GPUs make no replica of {per_replica} GPUs each. Ask for {per_replica} or more.")
            return 1, per_replica
        wanted = replicas or self.asked.get("replicas") or (None if per_replica and gpus else settings.get("replicas"))
        count, each = domain.count_of(gpus, per_replica, wanted)
        if count > 1 and self.engine.keeps_data:
            where = "config.replicas" if self.asked.get("replicas") and not replicas else "replicas"
            self._fail(where, f"Must be 1: engine {self.engine.name} keeps data, which one process at a time has open.")
        if per_replica and gpus and not wanted and gpus % per_replica:
            left = gpus - count * per_replica
            self.warnings.append(
                f"{gpus} GPUs at {per_replica} per replica are {count} {_plural('replica', count)};"
                f" {left} {_plural('GPU', left)} {'is' if left == 1 else 'are'} left over and not leased."
            )
        elif per_replica and wanted and (self.asked.get("resources") or {}).get("gpu") and count * each != gpus:
            self.warnings.append(
                f"{count} replicas of {each} GPUs take {count * each}, not the {gpus} of resources.gpu."
            )
        return count, each

    def _engine_config(self, gpus: int) -> dict[str, Any]:
        """The engine's configuration; what the engine says of it is told where the request said it."""
        config = engine_config(self.recipe, self.settings)
        where: dict[str, str] = {}
        for one in self.recipe.parameters:
            value = self.values.get(one.name)
            if one.sets[0] != "engine_config":
                continue
            explicit = one.name in self.said_at
            if explicit:
                where[".".join(one.sets[1:])] = self.said_at[one.name]
            if value is not None and (explicit or _at(self.asked.get("engine_config"), one.sets[1:]) is None):
                domain.set_at(config, one.sets[1:], value)
        for name in unknown_members(self.engine, self.asked.get("engine_config") or {}):
            known = self.engine.config_schema.get("properties", {})
            self._fail(f"config.engine_config.{name}", "Unknown." + _near(name, known))
        if not self.admin:
            if self.engine.admin_only and self.asked.get("engine_config"):
                told = f"config.engine_config of engine {self.engine.name} needs a key of role admin."
                raise Forbidden(told, errors={"config.engine_config": ["Needs role admin."]})
            reserved = for_admins(config, self._granted(), self.engine.config_schema)
            if reserved:
                raise Forbidden(
                    f"config.engine_config.{reserved[0]} needs a key of role admin, or a recipe that says it.",
                    errors={f"config.engine_config.{name}": ["Needs role admin."] for name in reserved},
                )
        wrong = self.engine.validate(config)
        for name, messages in wrong.items():
            self.errors.setdefault(where.get(name, f"config.engine_config.{name}"), []).extend(messages)
        if not wrong:
            self._check_gpus(config, gpus, where)
        return config

    def _granted(self) -> dict[str, Any]:
        """What counts as set by an admin: the recipe's own, and what its author lets a parameter set for all."""
        granted = engine_config(self.recipe, self.recipe.settings)
        known = self.engine.config_schema.get("properties", {})
        for one in self.recipe.parameters:
            value = self.values.get(one.name)
            if value is not None and one.sets[0] == "engine_config" and known.get(one.sets[1], {}).get("x-admin"):
                domain.set_at(granted, one.sets[1:], value)
        return granted

    def _check_gpus(self, config: Mapping[str, Any], gpus: int, where: Mapping[str, str]) -> None:
        needed = self.engine.gpus_needed(config)
        if needed is None or needed == gpus or (needed == 1 and gpus == 0):
            return
        field_name = "config.gpu_per_replica" if self.settings.get("gpu_per_replica") else "config.resources.gpu"
        field_name = where.get("tensor_parallel_size", where.get("pipeline_parallel_size", field_name))
        self._fail(field_name, f"Each replica gets {gpus} GPUs; this is written for {needed}. Make them the same.")

    def _body(self, connection: Connection, config: dict[str, Any], gpus: int, pool: str | None) -> dict[str, Any]:
        settings, recipe = self.settings, self.recipe
        model, model_name = self._names()
        environment = {
            name: domain.environment_text(value) for name, value in (settings.get("environment") or {}).items()
        }
        secrets = {name: dict(one) for name, one in (settings.get("secrets") or {}).items() if name not in environment}
        gateway = dict(settings.get("gateway") or {})
        for one in recipe.parameters:
            value = self.values.get(one.name)
            if value is not None and one.sets[0] == "environment":
                environment[one.sets[1]] = domain.environment_text(value)
                secrets.pop(one.sets[1], None)
            if value is not None and one.sets[0] == "gateway":
                gateway[one.sets[1]] = value
        body: dict[str, Any] = {
            "server_mode": str(mode_of(recipe)),
            "model_name": model_name,
            "recipe": recipe.full_name,
            "replica_config": config,
            "environment": environment,
            "resources": _resources(settings.get("resources") or {}, gpus),
            "job": _job(settings),
            "timeouts": _timeouts(settings),
            "gateway_config": gateway,
            "capabilities": dict(settings.get("capabilities") or {}),
            "labels": dict(settings.get("labels") or {}),
            "pool": self._pool(connection, pool),
            "run_diagnostics": (settings.get("probes") or {}).get("run_diagnostics"),
            "run": {
                "engine": recipe.engine,
                "source": model or "",
                "source_granted": self._model_parameter() not in self.said_at,
                "granted": self._granted(),
                "environment": sorted(name for name in environment if name not in self.own_environment),
                "secrets": secrets,
                "program": list(settings.get("command") or ()) if recipe.engine != "command" else [],
                "image": settings.get("image") or "",
                "command_granted": self.asked.get("command") is None,
            },
        }
        return {name: value for name, value in body.items() if value not in (None, {}, "")}

    def _model_parameter(self) -> str:
        return next((one.name for one in self.recipe.parameters if one.sets == MODEL), "")

    def _names(self) -> tuple[str, str]:
        """(what is loaded, what requests call it)."""
        found = {
            one.sets: self.values.get(one.name) for one in self.recipe.parameters if one.sets in (MODEL, MODEL_NAME)
        }
        model = found.get(MODEL) or ""
        name = self.model_name or found.get(MODEL_NAME) or model or self.recipe.name
        if is_path(name):
            # a path says where a model lies, not what it is called
            name = PurePath(name).name.removesuffix(".gguf") or self.recipe.name
        return model, name[:_LONGEST_NAME]

    def _pool(self, connection: Connection, pool: str | None) -> str | None:
        selector = pool or self.settings.get("pool")
        if selector is None or isinstance(selector, str):
            return selector
        if "name" in selector:
            return str(selector["name"])
        query = text("SELECT name, labels, state FROM pools ORDER BY state <> 'active', name")
        labels = selector["labels"]
        for row in connection.execute(query):
            if all(row.labels.get(name) == value for name, value in labels.items()):
                return str(row.name)
        words = ", ".join(f"{name}={value}" for name, value in labels.items())
        raise UnknownPool(
            f"No pool has the labels {words}. See `hostler pool list`.",
            errors={"config.pool": ["No pool has these labels."]},
        )

    def _rehearse(self, connection: Connection, body: Mapping[str, Any]) -> None:
        """All that the create itself would be refused for is told now, by the field that the request wrote."""
        self.ctx.pools.clear()
        try:
            plan = plans.resolve(self.ctx, connection, self.actor, body)
        except HostlerError as error:
            error.errors = {self._field(name): messages for name, messages in error.errors.items()}
            raise
        self.warnings += [one for one in plan.warnings if one not in self.warnings]
        image = self.asked.get("image")
        if image is not None and plan.backend_options.get("image") != image:
            self.warnings.append(f"image is left out: pool {plan.pool} runs no images.")

    def _field(self, name: str) -> str:
        """A field of the create as the field of the request that it came from."""
        if name == "model_name":
            return self.said_at.get(self._model_parameter(), name)
        if name == "resources.gpus":
            return "config.resources.gpu"
        head, _, rest = name.partition(".")
        if head == "replica_config":
            for one in self.recipe.parameters:
                if ".".join(one.sets) == f"engine_config.{rest}" and one.name in self.said_at:
                    return self.said_at[one.name]
            return f"config.engine_config.{rest}"
        return f"config.{name}" if head in ("environment", "labels") else name

    def _shown(self) -> dict[str, Any]:
        """The request's config without what might be secret."""
        public = {*self.recipe.by_environment(), *self.engine.public_env, *WISHES}
        shown = mask({name: value for name, value in self.asked.items() if name not in ("environment", "secrets")})
        if "secrets" in self.asked:
            shown["secrets"] = self.asked["secrets"]
        if "environment" in self.asked:
            shown["environment"] = {
                name: value if value is None or (name_matches(name, public) and not sounds_secret(name)) else MASK
                for name, value in self.asked["environment"].items()
            }
        return shown


def mode_of(recipe: Recipe) -> ServerMode:
    """The server mode of a recipe's replicas: a mock's where its engine is the mock."""
    if recipe.engine == ENGINE_BY_MODE[ServerMode.REPLICA_MOCK]:
        return ServerMode.REPLICA_MOCK
    return ServerMode.REPLICA


def _resources(resources: Mapping[str, Any], gpus: int) -> dict[str, Any]:
    found: dict[str, Any] = {"gpus": gpus}
    found |= {name: resources[name] for name in ("nodes", "cpu", "memory") if resources.get(name) is not None}
    if resources.get("time_limit") is not None:
        found["time_limit_s"] = _seconds_of(resources)
    return found


def _seconds_of(resources: Mapping[str, Any]) -> int:
    return max(1, round(resources["time_limit"] * 60))


def _job(settings: Mapping[str, Any]) -> dict[str, Any]:
    resources = settings.get("resources") or {}
    job: dict[str, Any] = {"job_priority": settings["priority"]} if settings.get("priority") else {}
    if resources.get("time_limit") is not None:
        job["job_timeout_s"] = _seconds_of(resources)
    return job


def _timeouts(settings: Mapping[str, Any]) -> dict[str, Any]:
    readiness, probes = settings.get("readiness") or {}, settings.get("probes") or {}
    found = {
        "readiness_timeout_s": readiness.get("timeout_s"),
        "port_discovery_timeout_s": readiness.get("start_timeout_s"),
        "poll_interval_s": readiness.get("poll_interval_s"),
        "health_check_timeout_s": probes.get("timeout_s"),
    }
    return {name: value for name, value in found.items() if value is not None}


def _at(config: Any, path: Iterable[str]) -> Any:
    for step in path:
        config = config.get(step) if isinstance(config, Mapping) else None
    return config


def _without_nulls(value: Any) -> Any:
    """What a null removes has no form to check."""
    if isinstance(value, Mapping):
        return {name: _without_nulls(one) for name, one in value.items() if one is not None}
    return value


def _told(field_name: str, message: str) -> str:
    """An unknown member with the nearest of those there are; what may be secret is not repeated."""
    known = message.partition("is unknown; known: ")[2]
    if known:
        return f"Unknown.{_near(field_name.rpartition('.')[2], known.split(', '))}"
    if field_name == "pool":
        return "Must be a pool's name, {name: NAME} or {labels: {LABEL: VALUE}}."
    if field_name.startswith("environment."):
        return "Must be a string of up to 32768 characters, a number, or true or false."
    return message[:300]


def _near(word: str, known: Iterable[str]) -> str:
    choices = sorted(known)
    close = difflib.get_close_matches(word[:200], choices, n=1)
    if close:
        return f" Did you mean {close[0]}?"
    return f" There are: {', '.join(choices)}." if choices else ""


def _plural(word: str, number: int) -> str:
    return word if number == 1 else f"{word}s"
