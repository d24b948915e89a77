"""What a request asks of a recipe: each value read, each wrong field kept by the name under which it was written."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath
from typing import Any

from app.domain import recipes as domain
from app.domain.environment import WISHES, check_environment
from app.domain.masking import MASK, mask, name_matches, sounds_secret
from app.domain.recipe_schema import ADMIN_KEYS, CONFIG
from app.domain.recipes import MODEL, MODEL_NAME, Parameter, Recipe
from app.engines.base import Engine
from app.engines.hub import is_path
from app.engines.registry import ENGINES
from app.engines.schema import check
from app.errors import Contradiction, Forbidden, InvalidConfig

#: As every create's ``model_name`` is: it becomes a key of routes and maps.
_MODEL_NAME = re.compile(r"[^\s/\x00-\x1f\x7f][^\x00-\x1f\x7f]{0,199}\Z")
#: Wrong names for which the nearest right one is looked up: a request may hold thousands.
_MOST_NEAR = 32


class Asked:
    """One request, read. ``settings`` is it laid over the recipe; ``errors`` are told all at once, by ``refuse``."""

    def __init__(
        self, recipe: Recipe, config: Mapping[str, Any], *, admin: bool, model_unsaid: Callable[[Engine], str]
    ) -> None:
        """``model_unsaid``: the model of the engine that is meant when none is named; empty when there is none."""
        self.recipe, self.admin, self._model_unsaid = recipe, admin, model_unsaid
        self.engine: Engine = ENGINES[recipe.engine]
        self.config: dict[str, Any] = domain.read_numbers(config, CONFIG)
        self.errors: dict[str, list[str]] = {}
        self.warnings: list[str] = []
        #: by the parameter's name, and where the request set it
        self.values: dict[str, Any] = {}
        self.said_at: dict[str, str] = {}
        #: of the environment, what is the request's own and no parameter's
        self.environment: dict[str, Any] = {}
        self.settings: dict[str, Any] = {}
        #: what requests call the model, where the request says so by itself
        self.model_name: str | None = None
        self._looked = 0

    def read(self, model_name: str | None) -> None:
        """Form first, then parameters and environment, then the whole laid over the recipe. Raises by ``refuse``,
        Contradiction, Forbidden."""
        self._check_form()
        malformed = bool(self.errors)
        self._read_parameters()
        self._read_model_name(model_name)
        if malformed:
            # it cannot be laid over anything
            self.refuse()
        self._lay_over()
        self._fill_in()
        self._check_names()
        if self.config.get("base_port") is not None:
            self.warnings.append("base_port is a wish: each replica's port comes from its lease.")

    def fail(self, field_name: str, message: str) -> None:
        self.errors.setdefault(field_name, []).append(message)

    def refuse(self) -> None:
        """Raise InvalidConfig that names every wrong field, if one is."""
        if not self.errors:
            return
        first = next(iter(self.errors))
        more = f" {len(self.errors) - 1} more fields are wrong." if len(self.errors) > 1 else ""
        raise InvalidConfig(f"{self.recipe.full_name}: {first}: {self.errors[first][0]}{more}", errors=self.errors)

    def near(self, word: str, known: Iterable[str]) -> str:
        """`` Did you mean ...?`` or what there is, as the end of a message."""
        self._looked += 1
        choices = sorted(known) if self._looked <= _MOST_NEAR else []
        close = difflib.get_close_matches(word[:200], choices, n=1)
        if close:
            return f" Did you mean {close[0]}?"
        return f" There are: {', '.join(choices)}." if choices else ""

    def named(self, target: tuple[str, ...]) -> Parameter | None:
        """The parameter that sets ``target``."""
        return next((one for one in self.recipe.parameters if one.sets == target), None)

    @property
    def loads_model(self) -> bool:
        return self.engine.needs_model_file or self.engine.takes_hub_model

    def names(self) -> tuple[str, str]:
        """(what is loaded, what requests call it)."""
        found = {one.sets: self.values.get(one.name) for one in self.recipe.parameters}
        model = found.get(MODEL) or ""
        name = self.model_name or found.get(MODEL_NAME) or model or self.recipe.name
        if self.loads_model and is_path(name):
            # a path says where a model lies, not what it is called
            name = PurePath(name).name.removesuffix(".gguf") or self.recipe.name
        return model, name

    def shown(self) -> dict[str, Any]:
        """The request's config without what might be secret."""
        public = {*self.recipe.by_environment(), *self.engine.public_env, *WISHES}
        shown = {name: mask(value) for name, value in self.config.items() if name not in ("environment", "secrets")}
        if "secrets" in self.config:
            shown["secrets"] = self.config["secrets"]
        if "environment" in self.config:
            shown["environment"] = {
                name: value if value is None or (name_matches(name, public) and not sounds_secret(name)) else MASK
                for name, value in (self.config["environment"] or {}).items()
            }
        return shown

    def _check_form(self) -> None:
        known = CONFIG["properties"]
        plain = {name: value for name, value in self.config.items() if value is not None}
        for name in [name for name in self.config if name not in known]:
            self.fail(f"config.{name}", "Unknown." + self.near(name, known))
        for field_name, messages in check(_without_nulls(plain), CONFIG).items():
            if field_name in self.config and field_name not in known:
                continue
            for one in messages:
                self.fail(f"config.{field_name}" if field_name else "config", self._told(field_name, one))
        for name in ADMIN_KEYS:
            if self.config.get(name) is not None and not self.admin:
                raise Forbidden(
                    f"config.{name} needs a key of role admin, or a recipe that says it.",
                    errors={f"config.{name}": ["Needs role admin."]},
                )

    def _told(self, field_name: str, message: str) -> str:
        """An unknown member with the nearest of those there are; what may be secret is not repeated."""
        known = message.partition("is unknown; known: ")[2]
        if known:
            return f"Unknown.{self.near(field_name.rpartition('.')[2], known.split(', '))}"
        if field_name == "pool":
            return "Must be a pool's name, {name: NAME} or {labels: {LABEL: VALUE}}."
        if field_name.startswith("environment."):
            return "Must be a string of up to 32768 characters, a number, or true or false."
        return message[:300]

    def _read_parameters(self) -> None:
        """Values by the parameter's name, from ``parameters`` and from the environment names that set them."""
        by_name = {one.name: one for one in self.recipe.parameters}
        by_environment = self.recipe.by_environment()
        for name, value in self._members("parameters"):
            if name not in by_name:
                self.fail(f"config.parameters.{name}", "Unknown parameter." + self.near(name, by_name))
                continue
            self._take(by_name[name], value, f"config.parameters.{name}")
        for name, value in self._members("environment"):
            parameter = by_environment.get(name)
            if parameter is not None:
                self._take(parameter, value, f"config.environment.{name}")
            else:
                self._take_environment(name, value, by_environment)

    def _members(self, part: str) -> list[tuple[str, Any]]:
        """Of an object of the config, what is not wrong already."""
        found = self.config.get(part)
        members = found.items() if isinstance(found, Mapping) else ()
        return [(name, value) for name, value in members if f"config.{part}.{name}" not in self.errors]

    def _take(self, parameter: Parameter, value: Any, where: str) -> None:
        found, problem = (None, "") if value is None else domain.read_value(parameter, value)
        if value is not None:
            problem = problem or domain.value_problem(parameter, found)
        if problem:
            self.fail(where, problem)
            return
        other = self.said_at.get(parameter.name)
        if other is not None and self.values.get(parameter.name) != found:
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
        listed = name_matches(name, allowed)
        text = "" if value is None else domain.environment_text(value)
        wrong = check_environment({name: text}, allowed, admin=self.admin and listed)
        if wrong:
            words = wrong[f"environment.{name}"][0]
            if not listed:
                words = (
                    f"Neither a parameter of this recipe nor a name that users of engine {self.engine.name} may set."
                )
                words += self.near(name, [*parameters, *(one for one in allowed if not one.endswith("*"))])
            self.fail(f"config.environment.{name}", words)
        else:
            # a null takes away what the recipe set
            self.environment[name] = None if value is None else text

    def _read_model_name(self, model_name: str | None) -> None:
        """A request's ``model_name`` is the model too, unless it says which one apart from that."""
        if model_name is None:
            return
        model, named = self.named(MODEL), self.named(MODEL_NAME)
        if model is not None and model.name not in self.said_at:
            self._take(model, model_name, "model_name")
        if named is not None and named.name in self.said_at and self.values[named.name] != model_name:
            told, where = "Both say what requests call the model.", self.said_at[named.name]
            raise Contradiction(f"model_name, {where}: {told}", errors={"model_name": [told], where: [told]})
        self.model_name = model_name

    def _lay_over(self) -> None:
        apart = ("environment", "parameters", "base_port")
        above = {name: value for name, value in self.config.items() if name not in apart}
        below = dict(self.recipe.settings)
        if isinstance(above.get("pool"), Mapping):
            # one way to choose a pool takes the place of another
            below.pop("pool", None)
        if "environment" in self.config and self.config["environment"] is None:
            below.pop("environment", None)
        self.settings = domain.merged(below, {**above, "environment": self.environment})

    def _fill_in(self) -> None:
        """Defaults of the parameters that the request left out."""
        for one in self.recipe.parameters:
            if one.name not in self.values and one.default is not None:
                self.values[one.name] = domain.read_value(one, one.default)[0]
            if one.name not in self.values and one.required and one.sets == MODEL:
                self._take_unsaid(one)
            if self.values.get(one.name) is None and one.required:
                by = f" or config.environment.{one.environment}" if one.environment else ""
                self.fail(f"config.parameters.{one.name}", f"Is required: {one.description} Set it{by}.")

    def _take_unsaid(self, parameter: Parameter) -> None:
        model = self._model_unsaid(self.engine)
        if model:
            self.values[parameter.name] = model
            # kept with the request: it stays this one whatever else the catalogue gets
            self.config["parameters"] = {**(self.config.get("parameters") or {}), parameter.name: model}
            self.warnings.append(f"No model was named: {model!r} is taken.")

    def _check_names(self) -> None:
        """That there is a model where the engine needs one, and that its name can be one."""
        if self.errors:
            return
        model, name = self.names()
        said = {one.sets: self.said_at[one.name] for one in self.recipe.parameters if one.name in self.said_at}
        loads = self.named(MODEL)
        where = said.get(MODEL) or (f"config.parameters.{loads.name}" if loads else "model_name")
        if self.loads_model and not model and not (loads is None and (self.model_name or self.named(MODEL_NAME))):
            self.fail(where, "Is required: which model? See `hostler model list`.")
        elif not _MODEL_NAME.match(name):
            told = "Cannot be a model's name: 1 to 200 characters, no control characters, neither / nor a space first."
            self.fail("model_name" if self.model_name else said.get(MODEL_NAME, where), told)


def _without_nulls(value: Any) -> Any:
    """What a null removes has no form to check."""
    if isinstance(value, Mapping):
        return {name: _without_nulls(one) for name, one in value.items() if one is not None}
    return value
