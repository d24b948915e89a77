"""A recipe under a request: what is wrong is told at once, and what is left is a create."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Connection, text

from app.domain import recipes as domain
from app.domain.modes import ENGINE_BY_MODE, ServerMode
from app.domain.recipes import MODEL, Recipe
from app.domain.services.desired import Restart, Update
from app.engines.base import Engine
from app.engines.schema import for_admins
from app.errors import Forbidden, HostlerError, UnknownPool
from app.usecases import backend_options, models, plans
from app.usecases.context import Actor, Context
from app.usecases.recipe_asked import Asked
from app.usecases.recipe_check import engine_config, unknown_members


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

    def model_unsaid(engine: Engine) -> str:
        with ctx.database.read() as connection:
            return models.unsaid(ctx, connection, actor, engine.name)

    asked = Asked(recipe, config, admin=actor.role == "admin", model_unsaid=model_unsaid)
    asked.read(model_name)
    return _Rendering(ctx, actor, asked).finish(replicas, pool)


class _Rendering:
    """From what was asked to the create, each step adding to ``asked.errors`` what it finds wrong."""

    def __init__(self, ctx: Context, actor: Actor, asked: Asked) -> None:
        self.ctx, self.actor, self.asked = ctx, actor, asked
        self.recipe, self.engine, self.settings = asked.recipe, asked.engine, asked.settings

    def finish(self, replicas: int | None, pool: str | None) -> Rendered:
        asked, settings = self.asked, self.settings
        count, gpus = self._counted(replicas)
        per_job = self._per_job(count)
        config = self._engine_config(gpus)
        asked.refuse()
        with self.ctx.database.read() as connection:
            body = self._body(connection, config, gpus, pool, per_job)
            self._rehearse(connection, body)
        return Rendered(
            recipe=self.recipe.full_name,
            version=self.recipe.version,
            body=body,
            count=count,
            all_or_nothing=bool(settings.get("all_or_nothing", False)),
            update={**asdict(Update()), **(settings.get("update") or {})},
            restart={**asdict(Restart()), **(settings.get("restart") or {})},
            successor_lead_s=settings.get("successor_lead_s"),
            asked=asked.shown(),
            warnings=asked.warnings,
        )

    def _counted(self, replicas: int | None) -> tuple[int, int]:
        """(how many, GPUs of each); what does not come out even is told."""
        asked, settings, resources = self.asked, self.settings, self.settings.get("resources") or {}
        gpus, per_replica = int(resources.get("gpu") or 0), settings.get("gpu_per_replica")
        for_each = asked.config.get("gpu_per_replica")
        if for_each and not gpus:
            told = f"Is {for_each}, and resources.gpu is none. Ask for GPUs, or leave it out."
            asked.fail("config.gpu_per_replica", told)
        if per_replica and 0 < gpus < per_replica:
            where = "config.gpu_per_replica" if for_each else "config.resources.gpu"
            told = f"{gpus} GPUs make no replica of {per_replica} GPUs each. Ask for {per_replica} or more."
            asked.fail(where, told)
            return 1, per_replica
        wanted = asked.config.get("replicas") if replicas is None else replicas
        if wanted is None and not (per_replica and gpus):
            wanted = settings.get("replicas")
        count, each = domain.count_of(gpus, per_replica, wanted)
        if count > 1 and self.engine.keeps_data:
            where = "config.replicas" if replicas is None and asked.config.get("replicas") else "replicas"
            asked.fail(where, f"Must be 1: engine {self.engine.name} keeps data, and {count} would be {count} stores.")
        if per_replica:
            self._check_nodes(each)
        if per_replica and gpus:
            self._tell_left_over(gpus, count, each, by_number=wanted is not None)
        return count, each

    def _check_nodes(self, each: int) -> None:
        """The GPUs of a replica come from ``gpu_per_replica``: the create's own words would name what nobody typed."""
        nodes = int((self.settings.get("resources") or {}).get("nodes") or 1)
        if each % nodes == 0:
            return
        for_each = self.asked.config.get("gpu_per_replica")
        typed = for_each and not (self.asked.config.get("resources") or {}).get("nodes")
        told = (
            f"{each} {_plural('GPU', each)} of each replica (gpu_per_replica) cannot be shared out evenly over {nodes}"
            f" hosts (resources.nodes). Make gpu_per_replica a multiple of {nodes}, or resources.nodes 1."
        )
        self.asked.fail("config.gpu_per_replica" if typed else "config.resources.nodes", told)

    def _per_job(self, count: int) -> int:
        """How many replicas fit on the one node that the recipe's GPUs are of."""
        per_replica, resources = self.settings.get("gpu_per_replica"), self.settings.get("resources") or {}
        return max(1, min(count, int(resources.get("gpu") or 0) // per_replica)) if per_replica else 1

    def _tell_left_over(self, gpus: int, count: int, each: int, *, by_number: bool) -> None:
        left = gpus - count * each
        if by_number and count and left and (self.asked.config.get("resources") or {}).get("gpu"):
            told = f"{count} replicas of {each} GPUs take {count * each}, not the {gpus} of resources.gpu."
            self.asked.warnings.append(told)
        elif not by_number and left:
            self.asked.warnings.append(
                f"{gpus} GPUs at {each} per replica are {count} {_plural('replica', count)};"
                f" {left} {_plural('GPU', left)} {'is' if left == 1 else 'are'} left over and not leased."
            )

    def _engine_config(self, gpus: int) -> dict[str, Any]:
        """The engine's configuration; what the engine says of it is told where the request said it."""
        asked = self.asked
        config = engine_config(self.recipe, self.settings)
        own = asked.config.get("engine_config") or {}
        where: dict[str, str] = {}
        for one in self.recipe.parameters:
            value, explicit = asked.values.get(one.name), one.name in asked.said_at
            if one.sets[0] != "engine_config":
                continue
            if explicit:
                where[".".join(one.sets[1:])] = asked.said_at[one.name]
            if value is not None and (explicit or _at(own, one.sets[1:]) is None):
                domain.set_at(config, one.sets[1:], value)
        for name in unknown_members(self.engine, own):
            known = self.engine.config_schema.get("properties", {})
            asked.fail(f"config.engine_config.{name}", "Unknown." + asked.near(name, known))
        if not asked.admin:
            self._check_role(config)
        wrong = self.engine.validate(config)
        for name, messages in wrong.items():
            asked.errors.setdefault(where.get(name, f"config.engine_config.{name}"), []).extend(messages)
        if not wrong:
            self._check_gpus(config, gpus, where)
        return config

    def _check_role(self, config: Mapping[str, Any]) -> None:
        reserved = [f"engine_config.{name}" for name in for_admins(config, self._granted(), self.engine.config_schema)]
        if self.engine.admin_only and self.asked.config.get("engine_config"):
            reserved = ["engine_config"]
        if reserved:
            raise Forbidden(
                f"config.{reserved[0]} needs a key of role admin, or a recipe that says it.",
                errors={f"config.{name}": ["Needs role admin."] for name in reserved},
            )

    def _granted(self) -> dict[str, Any]:
        """What counts as set by an admin: the recipe's own, and what its author lets a parameter set for all."""
        granted = engine_config(self.recipe, self.recipe.settings)
        known = self.engine.config_schema.get("properties", {})
        for one in self.recipe.parameters:
            value = self.asked.values.get(one.name)
            if value is not None and one.sets[0] == "engine_config" and known.get(one.sets[1], {}).get("x-admin"):
                domain.set_at(granted, one.sets[1:], value)
        return granted

    def _check_gpus(self, config: Mapping[str, Any], gpus: int, where: Mapping[str, str]) -> None:
        needed = self.engine.gpus_needed(config)
        if needed is None or needed == gpus or (needed == 1 and gpus == 0):
            return
        field_name = "config.gpu_per_replica" if self.settings.get("gpu_per_replica") else "config.resources.gpu"
        field_name = where.get("tensor_parallel_size", where.get("pipeline_parallel_size", field_name))
        self.asked.fail(field_name, f"Each replica gets {gpus} GPUs; this is written for {needed}. Make them the same.")

    def _body(
        self, connection: Connection, config: dict[str, Any], gpus: int, pool: str | None, per_job: int
    ) -> dict[str, Any]:
        settings, recipe, asked = self.settings, self.recipe, self.asked
        model, model_name = asked.names()
        environment = {name: domain.environment_text(one) for name, one in (settings.get("environment") or {}).items()}
        gateway = dict(settings.get("gateway") or {})
        for one in recipe.parameters:
            value = asked.values.get(one.name)
            if value is not None and one.sets[0] == "environment":
                environment[one.sets[1]] = domain.environment_text(value)
            if value is not None and one.sets[0] == "gateway":
                gateway[one.sets[1]] = value
        loads = asked.named(MODEL)
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
                "source": model,
                "source_granted": loads is None or loads.name not in asked.said_at,
                "granted": self._granted(),
                "environment": sorted(name for name in environment if name not in asked.environment),
                # what sets a name by value goes over what sets it by file
                "secrets": {n: dict(one) for n, one in (settings.get("secrets") or {}).items() if n not in environment},
                "program": list(settings.get("command") or ()) if recipe.engine != "command" else [],
                "image": settings.get("image") or "",
                "command_granted": asked.config.get("command") is None,
                **({"replicas_per_job": per_job} if per_job > 1 else {}),
            },
        }
        return {name: value for name, value in body.items() if value not in (None, {}, "")}

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
        warnings = self.asked.warnings
        warnings += [one for one in plan.warnings if one not in warnings]
        if self.settings.get("image"):
            told = backend_options.image_left_out(
                connection,
                plan.pool,
                plan.backend,
                plan.backend_options,
                str(self.settings["image"]),
                asked=self.asked.config.get("image") is not None,
            )
            warnings += [told] if told and told not in warnings else []
        takes_command = self.engine.name == "command" or self.engine.program_setting
        if self.asked.config.get("command") is not None and not takes_command:
            warnings.append(f"command is left out: engine {self.engine.name} starts a program of Hostler's own.")

    def _field(self, name: str) -> str:
        """A field of the create as the field of the request that it came from."""
        said_at = self.asked.said_at
        loads = self.asked.named(MODEL)
        if name == "model_name":
            return said_at.get(loads.name, name) if loads is not None else name
        if name == "resources.gpus":
            return "config.resources.gpu"
        if name.startswith("resources."):
            return f"config.{name.removesuffix('_s')}"
        head, _, rest = name.partition(".")
        if head == "replica_config":
            for one in self.recipe.parameters:
                if ".".join(one.sets) == f"engine_config.{rest}" and one.name in said_at:
                    return said_at[one.name]
            return f"config.engine_config.{rest}"
        return f"config.{name}" if head in ("environment", "labels") else name


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


def _plural(word: str, number: int) -> str:
    return word if number == 1 else f"{word}s"
