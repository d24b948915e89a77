"""From a request to what would run: mode, model and pool decide engine and backend; the engine plans the command."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from app.domain.environment import WISHES, check_environment
from app.domain.masking import MASK
from app.domain.modes import ServerMode, accepts_any_model, engine_for
from app.domain.routing import SERVICE_LABEL
from app.engines.base import Command, Engine, EngineRequest
from app.engines.registry import ENGINES
from app.engines.schema import for_admins
from app.errors import Contradiction, Forbidden, InvalidConfig, ModelForbidden, UnknownModel, UnknownPool
from app.stack.errors import PartFailed
from app.stack.haproxy import haproxy_program
from app.stack.layout import Layout
from app.usecases import backend_options, external, models
from app.usecases.backend_options import Wish
from app.usecases.context import Actor, Context
from app.usecases.reach import LOOPBACK


@dataclass(frozen=True)
class Plan:
    """What a create comes to. ``model_path`` is None where the engine needs no file."""

    pool: str
    backend: str
    mode: ServerMode
    engine: Engine
    model_name: str
    model_path: Path | None
    #: as the catalogue has it, for engines that take a name on the hub
    source: str
    #: what else the catalogue calls the model
    other_names: list[str]
    config: dict[str, Any]
    backend_options: dict[str, Any]
    gpus: int
    warnings: list[str] = field(default_factory=list)
    #: when the pool was last changed, as this plan knows it
    pool_version: Any = None
    #: the role by which it may run what it runs
    granted_role: str = ""
    #: environment names whose values are read from files where it is launched
    secrets: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: what starts it, where a recipe says so instead of a setting
    program: tuple[str, ...] = ()
    #: backend options that the pool did not decide
    not_of_pool: list[str] = field(default_factory=list)


def resolve(ctx: Context, connection: Connection, actor: Actor, body: Mapping[str, Any]) -> Plan:
    """Check a create request against pools, models and engines. Raises the error that names the field."""
    if SERVICE_LABEL in (body.get("labels") or {}):
        raise InvalidConfig(
            f"The label {SERVICE_LABEL} says which service a replica belongs to; Hostler sets it. Make a service:"
            " `hostler service create`.",
            errors={f"labels.{SERVICE_LABEL}": ["Set by Hostler alone. Use another name."]},
        )
    mode = ServerMode(body["server_mode"])
    #: how a recipe has it run; only our own code can say so
    run: Mapping[str, Any] = body.get("run") or {}
    pool = _find_pool(ctx, connection, body)
    if run:
        engine = ENGINES[run["engine"]]
        model = _recipe_model(ctx, connection, actor, engine, body, run)
    else:
        model = None if accepts_any_model(mode) else models.find(ctx, connection, body["model_name"])
        engine = _engine(ctx, connection, mode, model, body)
    # a recipe's command is its author's, who is an admin
    role = "admin" if run.get("command_granted") and engine.admin_only else actor.role
    if engine.admin_only and role != "admin":
        raise Forbidden(f"The engine {engine.name!r} runs what the request says; that needs a key of role admin.")
    config = merge_config(pool.defaults, model["defaults"] if model else {}, body, mode)
    # what an admin, or whoever may, set for the model, the pool or the recipe
    granted = {
        **merge_config(pool.defaults, model["defaults"] if model else {}, {}, mode),
        **(run.get("granted") or {}),
    }
    if actor.role != "admin":
        _check_role(engine, config, granted)
    errors = engine.validate(config)
    errors = {f"replica_config.{field_name}": messages for field_name, messages in errors.items()}
    if not errors:
        upstream = engine.upstream(config)
        if upstream is not None:
            may = actor.role == "admin" or config.get("base_url") == granted.get("base_url")
            external.check_allowed(ctx.settings, upstream, admin=may)
    own = {
        name: value for name, value in (body.get("environment") or {}).items() if name not in run.get("environment", ())
    }
    errors |= check_environment(own, engine.user_env, admin=actor.role == "admin")
    gpus = _gpus(body)
    if not errors:
        errors |= _gpu_errors(engine.gpus_needed(config), gpus)
    if errors:
        raise InvalidConfig("The request cannot run as written. Correct the named fields.", errors=errors)
    by_admin = [
        (one or {}).get("backend_options") or {} for one in (pool.defaults.get("replica_config"), run.get("granted"))
    ]
    own_options = _object(config, "backend_options", "replica_config.")
    words = _words(ctx, engine, run, config) if own_options.get("mounts") else ()
    wish = Wish(
        own=own_options,
        granted={**by_admin[0], **by_admin[1]},
        resources=body.get("resources") or {},
        gpus=gpus,
        image=str(run.get("image") or ""),
        engine=engine.name,
        programs=tuple(word for word in words if word.startswith("/")),
        spans_hosts=engine.spans_hosts,
        per_job=run.get("replicas_per_job") or 1,
    )
    options = backend_options.settle(ctx, connection, actor, pool, wish)
    not_of_pool = backend_options.not_of_pool(ctx, connection, actor, pool, wish, options)
    path = Path(model["source"]) if model and engine.needs_model_file else None
    plan = Plan(
        pool.name,
        pool.backend,
        mode,
        engine,
        body["model_name"],
        path,
        str(model["source"] or "") if model and engine.takes_hub_model else "",
        _other_names(body["model_name"], model),
        config,
        options,
        gpus,
        _warnings(body),
        pool.updated_at,
        granted_role=role,
        secrets={name: dict(one) for name, one in (run.get("secrets") or {}).items()},
        program=tuple(run.get("program") or ()),
        not_of_pool=not_of_pool,
    )
    _rehearse(ctx, plan, body)
    return plan


def _words(ctx: Context, engine: Engine, run: Mapping[str, Any], config: Mapping[str, Any]) -> Sequence[str]:
    """What is known of the command before it is made: the program that a recipe, a setting or the request names."""
    if engine.name == "command":
        return [word for word in config.get("command") or () if isinstance(word, str)][:1]
    return tuple(run.get("program") or ()) or _program(ctx, engine)


def _rehearse(ctx: Context, plan: Plan, body: Mapping[str, Any]) -> None:
    """What only the whole command shows (a name that is no argument, GPUs that cannot be shared) is told at once.

    Not of engines whose config says it all: their creates come by the thousand.
    """
    if plan.program or _program(ctx, plan.engine):
        port = ctx.settings.ports[0]
        own = planned_environment(plan, body)
        command_for(ctx, plan.engine, plan.model_name, resolved(plan), port=port, gpus=plan.gpus, environment=own)


def planned_environment(plan: Plan, body: Mapping[str, Any]) -> dict[str, str]:
    """The environment that a create brings; secrets, which are read only for a launch, by a placeholder."""
    own = {name: str(value) for name, value in (body.get("environment") or {}).items()}
    return {**dict.fromkeys(plan.secrets, MASK), **own}


def _engine(
    ctx: Context, connection: Connection, mode: ServerMode, model: Mapping[str, Any] | None, body: Mapping[str, Any]
) -> Engine:
    """By mode and model. Raises UnknownModel."""
    name = engine_for(mode, model["engine"] if model else None, body.get("platform_config"))
    if name is None or (model is None and not accepts_any_model(mode) and name != "command"):
        raise _unknown_model(ctx, connection, body["model_name"])
    return ENGINES[name]


def _unknown_model(ctx: Context, connection: Connection, name: str) -> UnknownModel:
    known = models.names(ctx, connection)
    return UnknownModel(
        f"No model is called {name!r}.{near(name, known)} See `hostler model list`.",
        errors={"model_name": ["Unknown model." + near(name, known)]},
    )


def _recipe_model(
    ctx: Context,
    connection: Connection,
    actor: Actor,
    engine: Engine,
    body: Mapping[str, Any],
    run: Mapping[str, Any],
) -> Mapping[str, Any] | None:
    """What a recipe's replica loads: a model of the catalogue, or what its name or path says by itself.

    None where the engine needs none. Raises UnknownModel, Forbidden, ModelForbidden.
    """
    wanted = run.get("source") or body["model_name"]
    if actor.models is not None:
        # a name that is allowed must not bring in what is not
        for name in dict.fromkeys((body["model_name"], *((wanted,) if not run.get("source_granted") else ()))):
            if name not in actor.models:
                told = f"The key is limited to the models {', '.join(actor.models) or 'none'}; {name!r} is another."
                raise ModelForbidden(told, errors={"model_name": ["The key is not allowed this model."]})
    if not engine.needs_model_file and not engine.takes_hub_model:
        return None
    found = models.find(ctx, connection, wanted)
    if found is not None and found["engine"] == engine.name:
        return found
    source = models.own_source(ctx, actor, engine, wanted, granted=bool(run.get("source_granted")))
    if source is None:
        raise _unknown_model(ctx, connection, wanted)
    return {"name": body["model_name"], "engine": engine.name, "source": source, "defaults": {}, "aliases": []}


def _other_names(asked: str, model: Mapping[str, Any] | None) -> list[str]:
    known = [model["name"], *model["aliases"]] if model else []
    return [name for name in dict.fromkeys(known) if name != asked]


def _check_role(engine: Engine, config: Mapping[str, Any], granted: Mapping[str, Any]) -> None:
    reserved = for_admins(config, granted, engine.config_schema)
    if reserved:
        raise Forbidden(
            f"replica_config.{reserved[0]} needs a key of role admin, or a model or pool that has it in its defaults.",
            errors={f"replica_config.{name}": ["Needs role admin."] for name in reserved},
        )


def merge_config(
    pool_defaults: Mapping[str, Any], model_defaults: Mapping[str, Any], body: Mapping[str, Any], mode: ServerMode
) -> dict[str, Any]:
    """The engine's configuration: model under pool under request. A nested ``replica_config`` is lifted."""
    own = dict(body.get("replica_config") or {})
    nested = _object(own, "replica_config", "replica_config.")
    own.pop("replica_config", None)
    config = {**model_defaults, **_object(pool_defaults, "replica_config", "the pool's defaults: "), **own, **nested}
    if mode is ServerMode.PLATFORM_WORKLOAD:
        config |= body.get("platform_config") or {}
    return config


def resolved(plan: Plan) -> dict[str, Any]:
    """The plan's outcome as kept with the replica: a later change of pool or model does not change what it runs."""
    return {
        "config": plan.config,
        "backend_options": plan.backend_options,
        "model_path": str(plan.model_path) if plan.model_path else None,
        "source": plan.source,
        "other_names": plan.other_names,
        **({"secrets": plan.secrets} if plan.secrets else {}),
        **({"program": list(plan.program)} if plan.program else {}),
        **({"not_of_pool": plan.not_of_pool} if plan.not_of_pool else {}),
    }


def _object(config: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    """The object under ``name``, empty when there is none. Raises InvalidConfig for anything else."""
    found = config.get(name) or {}
    if not isinstance(found, Mapping):
        raise InvalidConfig(f"{where}{name} must be an object.", errors={f"{where}{name}": ["Must be an object."]})
    return found


def command_for(
    ctx: Context,
    engine: Engine,
    model_name: str,
    settled: Mapping[str, Any],
    *,
    host: str = LOOPBACK,
    port: int | str,
    gpus: int,
    environment: Mapping[str, str],
    addresses: tuple[str, ...] | None = None,
    keeper: str = "ID",
) -> Command:
    """The command of one attempt. Raises InvalidConfig when the engine cannot run it (a model file is gone).

    ``host`` and ``port`` are placeholders where they are known only where it runs. ``addresses`` are where the host of
    ``Engine.upstream`` was found to be; ``keeper`` is whose data the engine opens: the service, or the replica that is
    in none.
    """
    path = settled.get("model_path")
    return engine.command(
        EngineRequest(
            model_name=model_name,
            model_path=Path(path) if path else None,
            host=host,
            port=port,
            source=settled.get("source", ""),
            other_names=tuple(settled.get("other_names") or ()),
            program=tuple(settled.get("program") or ()) or _program(ctx, engine),
            gpus=gpus,
            cache_dir=ctx.settings.state_dir / "cache",
            data_dir=Layout(ctx.settings.state_dir).data / keeper if engine.keeps_data else None,
            addresses=addresses,
            ca_file=ctx.settings.external_ca,
            config=settled["config"],
            environment={name: value for name, value in environment.items() if name not in WISHES},
            engine_key=ctx.engine_key,
        )
    )


def _program(ctx: Context, engine: Engine) -> tuple[str, ...]:
    if engine.program_setting == "haproxy":
        try:
            return (str(haproxy_program(ctx.settings)),)
        except PartFailed:
            # the backend does not find it either, and says so by the engine's words
            return ("haproxy",)
    return tuple(shlex.split(getattr(ctx.settings, engine.program_setting))) if engine.program_setting else ()


def near(word: str, known: Iterable[str]) -> str:
    """`` Did you mean …?`` or nothing."""
    close = difflib.get_close_matches(word, list(known), n=3)
    return f" Did you mean {' or '.join(close)}?" if close else ""


def _find_pool(ctx: Context, connection: Connection, body: Mapping[str, Any]) -> Any:
    asked, placed = body.get("pool"), (body.get("placement") or {}).get("multibox")
    if asked and placed and asked != placed:
        raise Contradiction(
            f"pool is {asked!r} and placement.multibox is {placed!r}. Send only one of them.",
            errors={"pool": ["Differs from placement.multibox."], "placement.multibox": ["Differs from pool."]},
        )
    name = asked or placed or ctx.settings.default_pool
    row = ctx.pools.get(name)
    if row is None:
        query = text("SELECT name, backend, options, defaults, updated_at FROM pools WHERE name = :name")
        row = connection.execute(query, {"name": name}).first()
    if row is not None:
        ctx.pools[name] = row
    else:
        known = [found for (found,) in connection.execute(text("SELECT name FROM pools"))]
        where = "placement.multibox" if placed and not asked else "pool"
        raise UnknownPool(
            f"No pool is called {name!r}.{near(name, known)} See `hostler pool list`.",
            errors={where: ["Unknown pool." + near(name, known)]},
        )
    return row


def _gpus(body: Mapping[str, Any]) -> int:
    resources = body.get("resources") or {}
    wanted = resources.get("gpus", resources.get("gpu")) or 0
    try:
        gpus = int(wanted)
    except (TypeError, ValueError, OverflowError):
        gpus = -1
    if not 0 <= gpus <= 1024:
        raise InvalidConfig(
            "resources.gpus is a number of GPUs from 0 to 1024.",
            errors={"resources.gpus": ["A whole number from 0 to 1024."]},
        )
    return gpus


def _gpu_errors(needed: int | None, gpus: int) -> dict[str, list[str]]:
    """An engine that is told to use other devices than it is leased fails late, or lets some idle."""
    if needed is None or needed == gpus or (needed == 1 and gpus == 0):
        return {}
    return {"resources.gpus": [f"Is {gpus}; this replica_config is written for {needed}. Make them the same."]}


def _warnings(body: Mapping[str, Any]) -> list[str]:
    asked = body.get("environment") or {}
    return [f"{name} is a wish: {why}." for name, why in WISHES.items() if name in asked]
