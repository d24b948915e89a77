"""What a service is asked to run, from a request to a revision, and from there to the next one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.fernet import InvalidToken
from sqlalchemy import Connection

from app.domain.masking import MASK
from app.engines.registry import ENGINES
from app.errors import Conflict, InvalidConfig, ModelForbidden
from app.usecases import recipes
from app.usecases.context import Actor, Context
from app.usecases.plans import Plan, resolve
from app.usecases.rendering import Rendered

#: What a request may say beside the config; kept, for the next revision is made from it too.
_PLAIN = ("model_name", "pool", "all_or_nothing", "successor_lead_s")
_KEPT = (*_PLAIN, "update", "restart")
#: Of a spec, what says nothing about what is run, and how.
_ASIDE = ("granted_role", "asked", "warnings")


@dataclass(frozen=True)
class Wanted:
    """One revision before it is written. ``secret`` is encrypted; ``spec`` may be shown but for what it masks."""

    spec: dict[str, Any]
    secret: dict[str, str]
    count: int
    warnings: tuple[str, ...] = ()
    body: dict[str, Any] = field(default_factory=dict)

    @property
    def recipe(self) -> str:
        return str(self.spec["recipe"]["name"])


def render(
    ctx: Context,
    actor: Actor,
    recipe_name: str,
    config: Mapping[str, Any],
    asked: Mapping[str, Any],
    replicas: int | None,
) -> Wanted:
    """What the recipe comes to under ``config``. Raises UnknownRecipe, InvalidConfig."""
    config = _with_plain_environment(config)
    rendered = recipes.render(
        ctx, actor, recipe_name, config, replicas=replicas, pool=asked.get("pool"), model_name=asked.get("model_name")
    )
    return wanted_of(actor, rendered, config, asked)


def _with_plain_environment(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Numbers of the environment as the text that they become: 1 and "1" are the same wish."""
    environment = config.get("environment")
    if not isinstance(environment, Mapping):
        return config
    plain = {
        name: str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
        for name, value in environment.items()
    }
    return {**config, "environment": plain}


def render_change(ctx: Context, actor: Actor, row: Any, present: Any, body: Mapping[str, Any]) -> Wanted:
    """What the service's ``row``, whose wanted revision is ``present``, comes to with the change of ``body``."""
    asked, replace = dict(present.spec.get("asked") or {}), bool(body.get("replace_config"))
    for name in ("update", "restart"):
        if body.get(name) is not None:
            asked[name] = {**({} if replace else asked.get(name) or {}), **body[name]}
    # null takes back what was said, where it may be said
    asked |= {name: body[name] for name in _PLAIN if name in body}
    before = config_of(ctx, present)
    change = with_kept_secrets(body.get("config") or {}, before)
    config = change if replace and "config" in body else merge(before, change)
    recipe = body.get("recipe_name") or present.spec["recipe"]["name"]
    return render(ctx, actor, recipe, config, asked, row.count)


def wanted_of(actor: Actor, rendered: Rendered, config: Mapping[str, Any], asked: Mapping[str, Any]) -> Wanted:
    """A rendered recipe as a revision; ``asked`` are the words of the request that go over the recipe's own."""
    environment = {name: str(value) for name, value in (rendered.body.get("environment") or {}).items()}
    spec = {
        "replica": {name: value for name, value in rendered.body.items() if name != "environment"},
        "recipe": {"name": rendered.recipe, "version": rendered.version},
        "config": rendered.asked,
        "update": _able_to_move({**rendered.update, **(asked.get("update") or {})}),
        "restart": {**rendered.restart, **(asked.get("restart") or {})},
        "all_or_nothing": _first(asked.get("all_or_nothing"), rendered.all_or_nothing),
        "successor_lead_s": _first(asked.get("successor_lead_s"), rendered.successor_lead_s),
        "warnings": list(rendered.warnings),
        # who may run it is checked again wherever a replica is made
        "granted_role": actor.role,
        "asked": {name: asked[name] for name in _KEPT if asked.get(name) is not None},
    }
    secret = {"environment": json.dumps(environment), "config": json.dumps(dict(config))}
    return Wanted(spec, secret, rendered.count, tuple(rendered.warnings), dict(rendered.body))


def _able_to_move(update: dict[str, Any]) -> dict[str, Any]:
    if update.get("max_surge", 1) == 0 and update.get("max_unavailable", 0) == 0:
        told = "With max_surge 0 too, no replica could ever be replaced. Allow one of them."
        raise InvalidConfig(f"update.max_unavailable: {told}", errors={"update.max_unavailable": [told]})
    return update


def check(ctx: Context, connection: Connection, actor: Actor, wanted: Wanted, count: int | None = None) -> Plan:
    """That a replica of it could be made now, and so many (None: as many as it says) at once.

    Raises the 4xx that names the field; ModelForbidden.
    """
    ctx.pools.clear()
    plan = resolve(ctx, connection, actor, wanted.body)
    if actor.models is not None and not {plan.model_name, *plan.other_names} & set(actor.models):
        raise ModelForbidden(
            f"Your key is not allowed the model {plan.model_name!r}. `GET /models` lists what it is allowed.",
            errors={"model_name": ["Not allowed with this key."]},
        )
    if plan.engine.keeps_data:
        _check_store(plan.engine.name, wanted.count if count is None else count)
        _check_order(plan.engine.name, wanted.spec["update"])
    return plan


def check_count(row: Any, count: int) -> None:
    """That so many replicas of the revision of ``row`` (None: there is none) can be. Raises InvalidConfig."""
    run = (row.spec["replica"].get("run") or {}) if row is not None else {}
    engine = ENGINES.get(run.get("engine", ""))
    if engine is not None and engine.keeps_data:
        _check_store(engine.name, count)


def _check_store(engine: str, count: int) -> None:
    if count > 1:
        told = (
            f"{count} replicas of engine {engine} would be {count} stores, each with data of its own. Ask for one, or"
            " make a service for each store."
        )
        raise InvalidConfig(f"replicas: {told}", errors={"replicas": [told]})


def _check_order(engine: str, update: Mapping[str, Any]) -> None:
    """Its files are open in one process: the next one begins when the last has ended."""
    if update.get("max_surge", 1) > 0 or update.get("max_unavailable", 0) < 1:
        told = f"Engine {engine} keeps data that two replicas cannot have open: max_surge must be 0, max_unavailable 1."
        raise InvalidConfig(f"update: {told}", errors={"update": [told]})


def body_of(ctx: Context, row: Any) -> dict[str, Any]:
    """What a replica of that revision's row is made from. Raises InvalidConfig when it cannot be decrypted."""
    environment = environment_of(_secret_of(ctx, row))
    body = dict(row.spec["replica"])
    return {**body, "environment": environment} if environment else body


def environment_of(secret: Mapping[str, str]) -> dict[str, str]:
    """A replica's environment, from what of a revision is kept secret."""
    return dict(json.loads(secret.get("environment", "{}")))


def config_of(ctx: Context, row: Any) -> dict[str, Any]:
    """The config of that revision as it was asked for, unmasked. Raises InvalidConfig when it cannot be decrypted."""
    return dict(json.loads(_secret_of(ctx, row).get("config", "{}")))


def columns_of(ctx: Context, spec: Mapping[str, Any]) -> dict[str, Any]:
    """What a service's row says of the revision that it wants."""
    return {"recipe": spec["recipe"]["name"], "pool": spec["replica"].get("pool") or ctx.settings.default_pool}


def merge(config: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """``change`` over ``config``: objects are merged by name, anything else takes the old one's place; null too, which
    is a value here (``gpu: null`` is *CPU only*)."""
    merged = dict(config)
    for name, value in change.items():
        old = merged.get(name)
        merged[name] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def with_kept_secrets(config: Mapping[str, Any], before: Mapping[str, Any], path: str = "config") -> dict[str, Any]:
    """``config`` with the present value wherever it says only ``***``, as secret values are shown.

    Raises InvalidConfig where there is none.
    """
    found: dict[str, Any] = {}
    for name, value in config.items():
        old = before.get(name)
        if isinstance(value, Mapping):
            found[name] = with_kept_secrets(value, old if isinstance(old, Mapping) else {}, f"{path}.{name}")
        elif value != MASK:
            found[name] = value
        elif old is None:
            told = f"{MASK} stands for the value that is there, and there is none. Send the value."
            raise InvalidConfig(f"{path}.{name}: {told}", errors={f"{path}.{name}": [told]})
        else:
            found[name] = old
    return found


def same(wanted: Wanted, ctx: Context, row: Any) -> bool:
    """Whether the revision's row comes to the same already, however it was asked for."""
    new = json.loads(json.dumps(wanted.spec))
    spec, new = ({name: value for name, value in one.items() if name not in _ASIDE} for one in (row.spec, new))
    return bool(spec == new) and environment_of(_secret_of(ctx, row)) == environment_of(wanted.secret)


def runs_the_same(wanted: Wanted, ctx: Context, row: Any) -> bool:
    """Whether a replica of it would run what one of the revision's row does."""
    new = json.loads(json.dumps(wanted.spec["replica"]))
    same_environment = environment_of(_secret_of(ctx, row)) == environment_of(wanted.secret)
    return bool(row.spec["replica"] == new) and same_environment


def _secret_of(ctx: Context, row: Any) -> dict[str, str]:
    try:
        return ctx.unseal(row.environment)
    except InvalidToken as error:
        raise InvalidConfig(
            "Its environment cannot be decrypted: HOSTLER_SECRET_KEY is another one now. Update the service with"
            " `replace_config` and its whole config."
        ) from error


def _first(asked: Any, otherwise: Any) -> Any:
    return otherwise if asked is None else asked


def no_such_revision(service_id: str, number: int) -> Conflict:
    return Conflict(
        f"Service {service_id} has no revision {number} to go back to. See `hostler service revisions {service_id}`."
    )
