"""One replica by a recipe: the request's own fields are laid over what the recipe comes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from app.domain.modes import ENGINE_BY_MODE, ServerMode
from app.domain.recipes import merged
from app.errors import Contradiction, HostlerError
from app.usecases import creates, idempotency, recipes
from app.usecases.context import Actor, Context, Idempotency
from app.usecases.creates import CreateOutcome

#: A field of the request as the recipe's config has it.
_AS_CONFIG = {
    "environment": "config.environment",
    "replica_config": "config.engine_config",
    "resources": "config.resources",
    "labels": "config.labels",
}
#: Fields of the request that are laid over the rendered ones.
_OVER = ("gateway_config", "capabilities", "job", "timeouts", "api_config", "full_config", "placement")


def request_create(
    ctx: Context, actor: Actor, body: Mapping[str, Any], request: Idempotency | None = None
) -> CreateOutcome:
    """As ``creates.request_create``, of a body with ``recipe``."""
    try:
        made, warnings = _rendered(ctx, actor, body)
    except HostlerError:
        # the recipe may have changed since the same request was accepted
        with ctx.database.begin() as connection:
            before = idempotency.claim(connection, actor, request)
        if before is None:
            raise
        return CreateOutcome(before["replica_id"], before["task_id"], replayed=True)
    outcome = creates.request_create(ctx, actor, made, request)
    return replace(outcome, warnings=tuple(dict.fromkeys((*warnings, *outcome.warnings))))


def plan_create(ctx: Context, actor: Actor, body: Mapping[str, Any]) -> dict[str, Any]:
    """As ``creates.plan_create``, of a body with ``recipe``."""
    made, warnings = _rendered(ctx, actor, body)
    plan = creates.plan_create(ctx, actor, made)
    return {**plan, "recipe": made["recipe"], "warnings": list(dict.fromkeys((*warnings, *plan["warnings"])))}


def _rendered(ctx: Context, actor: Actor, body: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    config = _config(body)
    pool = body.get("pool") or (body.get("placement") or {}).get("multibox")
    try:
        found = recipes.render(ctx, actor, body["recipe"], config, pool=pool, model_name=body.get("model_name"))
    except HostlerError as error:
        for name in list(error.errors):
            error.errors[_field(name, body)] = error.errors.pop(name)
            error.detail = error.detail.replace(f"{name}:", f"{_field(name, body)}:")
        raise
    made = dict(found.body)
    # there is nobody to share a job with
    made["run"] = {name: value for name, value in found.body["run"].items() if name != "replicas_per_job"}
    made["server_mode"] = _mode(body, found.body["run"]["engine"], found.body["server_mode"])
    for name in _OVER:
        if body.get(name) is not None:
            made[name] = merged(made.get(name), body[name])
    made["wait_for_ready"] = body.get("wait_for_ready", True)
    made["run_diagnostics"] = body.get("run_diagnostics", True) and made.get("run_diagnostics", True)
    warnings = list(found.warnings)
    if found.count > 1:
        warnings.append(
            f"This is one replica; the recipe comes to {found.count}: `hostler service create {found.recipe}`."
        )
    return made, warnings


def _config(body: Mapping[str, Any]) -> dict[str, Any]:
    resources = dict(body.get("resources") or {})
    if "gpus" in resources:
        resources["gpu"] = resources.pop("gpus")
    own = {
        "environment": body.get("environment"),
        "engine_config": body.get("replica_config"),
        "resources": resources,
        "labels": body.get("labels"),
    }
    config = dict(body.get("config") or {})
    for name, value in own.items():
        if value:
            # nulls are for the recipe to see, so this is no merge of patches
            config[name] = {**config[name], **value} if isinstance(config.get(name), Mapping) else value
    return config


def _mode(body: Mapping[str, Any], engine: str, own: str) -> str:
    mode = ServerMode(body.get("server_mode") or ServerMode.REPLICA)
    if mode is ServerMode.REPLICA:
        return own
    fits = ENGINE_BY_MODE[mode] in (None, engine) and mode is not ServerMode.PLATFORM_WORKLOAD
    if not fits:
        told = f"The recipe {body['recipe']} runs {engine}; server_mode {mode} is something else. Leave it out."
        raise Contradiction(told, errors={"server_mode": [told], "recipe": [told]})
    return str(mode)


def _field(name: str, body: Mapping[str, Any]) -> str:
    """A field of the rendered request by the name under which this one holds it."""
    if name == "recipe_name":
        return "recipe"
    for own, prefix in _AS_CONFIG.items():
        rest = name.removeprefix(f"{prefix}.")
        if rest != name:
            asked = body.get(own) or {}
            if own == "resources" and rest == "gpu" and "gpus" in asked:
                return "resources.gpus"
            return f"{own}.{rest}" if rest.partition(".")[0] in asked else name
    return name
