"""Whether a recipe can be served: its form by the schema, and what only its engine and its own words show."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from app.domain import recipes as domain
from app.domain.environment import WISHES
from app.domain.recipe_schema import RECIPE
from app.domain.recipes import MODEL, MODEL_NAME, Parameter, Recipe
from app.domain.routing import SERVICE_LABEL
from app.engines.base import Engine
from app.engines.registry import ENGINES
from app.engines.schema import check

#: Errors of one file that are told; the rest waits until these are put right.
_MOST_TOLD = 50


def recipe_from(document: Any, category: str, name: str) -> tuple[Recipe | None, list[str]]:
    """(the recipe, none) or (None, all that is wrong, each with the field it is about)."""
    if not isinstance(document, Mapping):
        return None, ["it holds no object (name: value)"]
    wrong = [(field, one) for field, many in check(document, RECIPE).items() for one in many]
    errors = [_told(field, one) for field, one in wrong[:_MOST_TOLD]]
    for field, there, wanted in (
        ("name", document.get("name"), name),
        ("category", document.get("category"), category),
    ):
        if there is not None and there != wanted:
            errors.append(f"{field}: is {there!r}, but the file lies at {category}/{name}.yaml")
    if errors:
        return None, errors
    recipe = domain.recipe_of(document, category, name)
    errors = [*_parameter_problems(recipe), *_setting_problems(recipe)]
    return (None, errors) if errors else (recipe, [])


def _told(field: str, message: str) -> str:
    """One error of the schema; an unknown member with the nearest of those there are."""
    words, _, known = message.partition("; known: ")
    if known:
        close = difflib.get_close_matches(field.rpartition(".")[2], known.split(", "), n=1)
        message = f"{words}. Did you mean {close[0]}?" if close else f"{words}. There are: {known}."
    return f"{field or 'the file'}: {message[:500]}"


def engine_config(recipe: Recipe, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The engine's configuration that the settings come to, without the parameters."""
    config = dict(settings.get("engine_config") or {})
    if recipe.engine == "command":
        readiness, probes = settings.get("readiness") or {}, settings.get("probes") or {}
        more = {
            "command": settings.get("command"),
            "readiness_path": readiness.get("path"),
            "diagnostics": probes.get("diagnostics"),
        }
        config |= {name: value for name, value in more.items() if value is not None}
    return config


def _parameter_problems(recipe: Recipe) -> Iterator[str]:
    taken: dict[tuple[str, str], str] = {}
    for one in recipe.parameters:
        where = f"parameters.{one.name}"
        if one.environment in WISHES or one.environment.startswith("HOSTLER_"):
            yield f"{where}.environment: {one.environment} is Hostler's own"
        for what, key in (("environment", one.environment), ("sets", ".".join(one.sets))):
            if key and taken.setdefault((what, key), one.name) != one.name:
                yield f"{where}.{what}: {key} is that of parameters.{taken[what, key]} already"
        if one.sets in (MODEL, MODEL_NAME) and one.type != "string":
            yield f"{where}.type: what sets {one.sets[0]} is a string"
        yield from (f"{where}{problem}" for problem in _own_problems(one))


def _own_problems(one: Parameter) -> Iterator[str]:
    if one.pattern:
        try:
            re.compile(one.pattern)
        except re.error as error:
            yield f".pattern: {error}"
            return
    if one.required and one.default is not None:
        yield ".required: it has a default; leave out one of them"
    for index, choice in enumerate(one.enum):
        value, problem = domain.read_value(one, choice)
        if problem or type(value) is not type(choice):
            yield f".enum.{index}: is no {one.type}"
    if one.default is not None:
        value, problem = domain.read_value(one, one.default)
        problem = problem or domain.value_problem(one, value)
        if problem:
            yield f".default: {problem}"


def _setting_problems(recipe: Recipe) -> Iterator[str]:
    engine = ENGINES.get(recipe.engine)
    if engine is None:
        yield f"engine: there is no {recipe.engine!r}; there are: {', '.join(sorted(ENGINES))}"
        return
    settings = recipe.settings
    yield from _command_problems(engine, settings)
    if SERVICE_LABEL in (settings.get("labels") or {}):
        yield f"labels.{SERVICE_LABEL}: is set by Hostler alone"
    yield from _environment_problems(recipe)
    config = engine_config(recipe, settings)
    for one in recipe.parameters:
        if one.default is not None and one.sets[0] == "engine_config":
            domain.set_at(config, one.sets[1:], domain.read_value(one, one.default)[0])
    for name in unknown_members(engine, config):
        yield f"engine_config.{name}: engine {engine.name} does not know it"
    later = {one.sets[1] for one in recipe.parameters if one.sets[0] == "engine_config" and one.default is None}
    for field, messages in engine.validate(config).items():
        if field.partition(".")[0] not in later:
            yield f"engine_config.{field}: {'; '.join(messages)}"


def _environment_problems(recipe: Recipe) -> Iterator[str]:
    environment, secrets = (set(recipe.settings.get(name) or {}) for name in ("environment", "secrets"))
    by_parameter = set(recipe.by_environment())
    for name in sorted(secrets & (environment | by_parameter)):
        yield f"secrets.{name}: environment or a parameter sets it too"
    for name in sorted(environment & by_parameter):
        yield f"environment.{name}: a parameter is set by it; give that a default instead"
    targets = {one.sets[1] for one in recipe.parameters if one.sets[0] == "environment"}
    for name in sorted(environment | secrets | targets):
        if name.startswith("HOSTLER_"):
            yield f"environment.{name}: names that begin so are Hostler's own"


def _command_problems(engine: Engine, settings: Mapping[str, Any]) -> Iterator[str]:
    if engine.name == "command":
        if "command" not in settings:
            yield "command: engine command needs it"
        return
    for part, name in (("readiness", "path"), ("probes", "diagnostics")):
        if name in (settings.get(part) or {}):
            yield f"{part}.{name}: engine {engine.name} knows its own; only engine command takes it"
    if "command" in settings and not engine.program_setting:
        yield f"command: engine {engine.name} brings its own program; leave it out"


def unknown_members(engine: Engine, config: Mapping[str, Any]) -> list[str]:
    """Members of an engine's configuration that it would not look at: a mistyped one must not be dropped silently."""
    known = {*engine.config_schema.get("properties", {}), "backend_options"}
    return [name for name in config if name not in known]
