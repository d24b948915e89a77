"""Every engine Hostler knows, by name. A new one is one file and one line here."""

from __future__ import annotations

from app.engines.base import Engine
from app.engines.command import CommandEngine
from app.engines.llama_cpp import LlamaCpp
from app.engines.mock import MockEngine
from app.errors import InvalidConfig

ENGINES: dict[str, Engine] = {
    "llama-cpp": LlamaCpp(),
    "mock": MockEngine(),
    "command": CommandEngine(),
}


def engine(name: str) -> Engine:
    """The engine of that name. Raises InvalidConfig, which lists the known ones."""
    found = ENGINES.get(name)
    if found is None:
        raise InvalidConfig(f"No engine {name!r}. Known engines: {', '.join(ENGINES)}.", errors={"engine": ["unknown"]})
    return found


def may_set(engine_: Engine, name: str) -> bool:
    """Whether any user may set the environment variable ``name`` for this engine; others need role admin."""
    return _listed(engine_.user_env, name)


def is_public(engine_: Engine, name: str) -> bool:
    """Whether the value of the environment variable ``name`` may be shown unmasked."""
    return _listed(engine_.public_env, name)


def _listed(names: frozenset[str], name: str) -> bool:
    return name in names or any(item.endswith("*") and name.startswith(item[:-1]) for item in names)
