"""Recipes: what there is, and what one comes to under a request."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from app.domain.masking import mask, mask_environment
from app.domain.recipes import Parameter, Recipe
from app.engines.registry import ENGINES
from app.errors import InvalidConfig, NotFound, UnknownRecipe
from app.usecases import creates, paging
from app.usecases.context import Actor, Context
from app.usecases.recipe_files import Known, shelf_of
from app.usecases.rendering import Rendered, rendered

__all__ = ["Rendered", "find", "folder_problems", "get", "list_recipes", "plan", "render", "shown"]


def render(
    ctx: Context,
    actor: Actor,
    recipe_name: str,
    config: Mapping[str, Any] | None,
    *,
    replicas: int | None = None,
    pool: str | None = None,
    model_name: str | None = None,
) -> Rendered:
    """What creating a member of a service of that recipe under ``config`` is.

    Raises UnknownRecipe; InvalidConfig that names every wrong field (``config.resources.gpu``); Forbidden; and what
    the create itself would be refused for: an unknown pool or model.
    """
    recipe = find(ctx, recipe_name)
    return rendered(ctx, actor, recipe, config or {}, replicas=replicas, pool=pool, model_name=model_name)


def plan(ctx: Context, actor: Actor, recipe_name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What a create would be and run, with values masked; ``asked`` may hold what ``render`` takes. Changes nothing.

    Raises as ``render`` does, but NotFound for a recipe that there is none of.
    """
    if not _matching(shelf_of(ctx.settings).look(), recipe_name):
        get(ctx, recipe_name)
    more = {name: asked.get(name) for name in ("replicas", "pool", "model_name")}
    found = render(ctx, actor, recipe_name, asked.get("config"), **more)
    planned = creates.plan_create(ctx, actor, found.body)
    return {
        "recipe": found.recipe,
        "version": found.version,
        "count": found.count,
        "replica": shown(found.body),
        "plan": planned,
        "all_or_nothing": found.all_or_nothing,
        "update": found.update,
        "restart": found.restart,
        "successor_lead_s": found.successor_lead_s,
        "warnings": found.warnings,
    }


def shown(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a rendered create as anybody may see it: values of secrets masked, Hostler's own notes left out."""
    run = body["run"]
    made = {name: mask(value) for name, value in body.items() if name not in ("run", "environment")}
    if body.get("environment"):
        made["environment"] = mask_environment(body["environment"], ENGINES[run["engine"]].public_env)
    if run.get("secrets"):
        made["secrets"] = run["secrets"]
    return {**made, "engine": run["engine"], "source": run["source"]}


def find(ctx: Context, name: str) -> Recipe:
    """The recipe of that full or short name, as it is served. Raises UnknownRecipe."""
    known = shelf_of(ctx.settings).look()
    matching = _matching(known, name)
    if len(matching) == 1 and matching[0].recipe is not None:
        return matching[0].recipe
    raise _unknown(known, name, matching)


def get(ctx: Context, name: str) -> dict[str, Any]:
    """The recipe of that full or short name. Raises NotFound; UnknownRecipe that lists those of an ambiguous one."""
    known = shelf_of(ctx.settings).look()
    matching = _matching(known, name)
    if not matching:
        raise NotFound(f"There is no recipe {name[:200]!r}.{_near(known, name)} `hostler recipe list` shows them.")
    if len(matching) > 1:
        raise _unknown(known, name, matching)
    return _body(matching[0])


def list_recipes(
    ctx: Context, filters: Mapping[str, Any], limit: int, cursor: str | None
) -> tuple[list[dict[str, Any]], int, str | None]:
    """(recipes, total, next cursor) by name. ``path`` is a category or a full name, ``name`` a short or full name."""
    after = paging.decode(cursor, (str,))
    path, name = (filters.get("path") or "").strip("/"), filters.get("name")
    found = {
        full: one
        for full, one in shelf_of(ctx.settings).look().items()
        if (not path or f"{full}/".startswith(f"{path}/")) and (not name or name in (full, one.name))
    }
    rest = [full for full in found if after is None or full > after[0]]
    more = paging.encode((rest[limit - 1],)) if len(rest) > limit else None
    return [_body(found[full]) for full in rest[:limit]], len(found), more


def folder_problems(ctx: Context) -> list[str]:
    """What is wrong with the operator's folder as a whole."""
    shelf = shelf_of(ctx.settings)
    shelf.look()
    return [shelf.problem] if shelf.problem else []


def _matching(known: Mapping[str, Known], name: str) -> list[Known]:
    if name in known:
        return [known[name]]
    return [one for one in known.values() if one.name == name]


def _unknown(known: Mapping[str, Known], name: str, matching: list[Known]) -> InvalidConfig:
    shown = repr(name[:200])
    if len(matching) > 1:
        full = " or ".join(f"{one.category}/{one.name}" for one in matching)
        told = f"{shown} is the name of several recipes: {full}. Send one of these."
        return UnknownRecipe(told, errors={"recipe_name": [f"Ambiguous: {full}."]})
    if matching:
        why = "; ".join(matching[0].problems)
        told = f"The recipe {shown} cannot be served: {why}. Correct {matching[0].path}."
        return UnknownRecipe(told, errors={"recipe_name": [f"Its file is broken: {why}"]})
    near = _near(known, name)
    return UnknownRecipe(
        f"No recipe is called {shown}.{near} See `hostler recipe list`.",
        errors={"recipe_name": ["Unknown recipe." + near]},
    )


def _near(known: Mapping[str, Known], name: str) -> str:
    # one that is broken and never was good would only be refused again
    served = {full: one for full, one in known.items() if one.recipe is not None}
    words = {word: full for full, one in served.items() for word in (full, one.name)}
    close = difflib.get_close_matches(name[:200], list(words), n=3)
    full = list(dict.fromkeys(words[word] for word in close))
    return f" Did you mean {' or '.join(full)}?" if full else ""


def _body(known: Known) -> dict[str, Any]:
    recipe = known.recipe
    body: dict[str, Any] = {
        "recipe": f"{known.category}/{known.name}",
        "name": known.name,
        "category": known.category,
        "path": f"{known.category}/{known.name}",
        "source": "built-in" if known.built_in else "folder",
        "state": "broken" if known.problems else "ok",
        "problems": list(known.problems),
        "served": recipe is not None,
        "description": "",
        "version": "",
        "engine": "",
        "parameters": {},
    }
    if recipe is not None:
        body |= {
            "description": recipe.description,
            "version": recipe.version,
            "engine": recipe.engine,
            "ports": dict(recipe.ports),
            "parameters": {one.name: _parameter(one) for one in recipe.parameters},
            "default_model": next((one.default for one in recipe.parameters if one.sets == ("model",)), None),
            **_shown_settings(recipe),
        }
    return body


def _shown_settings(recipe: Recipe) -> dict[str, Any]:
    """What the recipe sets. References to secrets are no secrets; values of names that sound like one are masked."""
    shown = {name: value if name == "secrets" else mask(value) for name, value in recipe.settings.items()}
    engine = ENGINES[recipe.engine]
    shown["settable_environment"] = sorted({*recipe.by_environment(), *engine.user_env})
    return shown


def _parameter(one: Parameter) -> dict[str, Any]:
    said = {
        "type": one.type,
        "description": one.description,
        "default": one.default,
        "required": one.required,
        "environment": one.environment or None,
        "sets": ".".join(one.sets),
    }
    bounds = {
        "minimum": one.minimum,
        "maximum": one.maximum,
        "exclusive_minimum": one.exclusive_minimum,
        "enum": list(one.enum) or None,
        "pattern": one.pattern or None,
    }
    return {**said, **{name: value for name, value in bounds.items() if value is not None}}
