"""Models: catalogue rows, and every GGUF file in the models folder by its name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from app.db.repos import events
from app.db.repos import models as repo
from app.domain.masking import mask
from app.engines.base import Engine
from app.engines.gguf_files import ModelFile, header_problem, scan_models
from app.engines.hub import HUB_NAME, is_path
from app.engines.registry import ENGINES
from app.engines.schema import for_admins
from app.errors import Conflict, Forbidden, InvalidConfig, NameTaken, NotFound
from app.usecases import external, idempotency, paging
from app.usecases.context import Actor, Context, Idempotency

SUFFIX = ".gguf"
#: The engine that serves what is merely a file in the folder.
FILE_ENGINE = "llama-cpp"
LONGEST_NAME = 200


def find(context: Context, connection: Connection, name: str) -> dict[str, Any] | None:
    """The model that ``name`` or an alias means (``engine``, ``source``, ``defaults``, ...), or None.

    ``source`` of a model whose engine reads a file is an absolute path. The catalogue comes before the folder.
    """
    row = repo.find(connection, name)
    if row is not None:
        found = dict(row._mapping)
        engine = ENGINES.get(found["engine"])
        if engine is not None and engine.needs_model_file:
            found["source"] = str(_resolve(context, found["source"]))
        return found
    file = _file_of(context.settings.models_dir, name)
    return _from_file(file) if file is not None else None


def names(context: Context, connection: Connection) -> list[str]:
    """Every name and alias that a request may use, sorted."""
    known = {file.name for file in _scan(context.settings.models_dir)}
    for row in repo.read_all(connection):
        known.update((row.name, *row.aliases))
    return sorted(known)


def read_all(context: Context, connection: Connection) -> list[dict[str, Any]]:
    """Every model, by name: the catalogue over the files of the models folder. ``defaults`` are not masked."""
    known = {file.name: _from_file(file) for file in _scan(context.settings.models_dir)}
    known |= {row.name: dict(row._mapping) for row in repo.read_all(connection)}
    return [known[name] for name in sorted(known)]


def unsaid(context: Context, connection: Connection, actor: Actor, engine: str) -> str:
    """The model of ``engine`` that is meant where none is named: ``HOSTLER_DEFAULT_MODEL``, else the only one."""
    known = {model["name"]: model for model in read_all(context, connection) if model["engine"] == engine}
    allowed = [name for name in known if actor.models is None or name in actor.models]
    if context.settings.default_model in allowed:
        return context.settings.default_model
    return allowed[0] if len(allowed) == 1 else ""


def create(
    context: Context, actor: Actor, body: Mapping[str, Any], request: Idempotency | None = None
) -> tuple[dict[str, Any], bool]:
    """(the model, whether this was a replay). Raises InvalidConfig, Forbidden, NameTaken."""
    with context.database.begin() as connection:
        if idempotency.claim(connection, actor, request) is not None:
            return _body(_found(context, connection, body["name"])), True
        values = _checked(context, actor, body)
        repo.lock_table(connection)
        taken = repo.taken(connection, [values["name"], *values["aliases"]])
        if taken:
            raise NameTaken(
                f"A model is named {', '.join(taken)} already. Choose another name, or delete that one.",
                errors={"name" if body["name"] in taken else "aliases": ["Taken."]},
            )
        repo.insert(connection, values)
        _tell(connection, actor, "model_created", values["name"])
        idempotency.remember(connection, actor, request, {"name": values["name"]})
        made = _body(_found(context, connection, values["name"]))
    context.notify("models", "events")
    return made, False


def get(context: Context, name: str) -> dict[str, Any]:
    """The model of that name or alias. Raises NotFound with near matches."""
    with context.database.read() as connection:
        return _body(_found(context, connection, name))


def list_models(
    context: Context, filters: Mapping[str, Any], limit: int, cursor: str | None
) -> tuple[list[dict[str, Any]], int, str | None]:
    """(models, total, next cursor) by name; filters ``engine`` and ``format``."""
    after = paging.decode(cursor, (str,))
    with context.database.read() as connection:
        known = read_all(context, connection)
    matching = [
        _body(model)
        for model in known
        if all(model[field] == value for field, value in filters.items() if value is not None)
    ]
    rest = [model for model in matching if after is None or model["name"] > after[0]]
    more = paging.encode((rest[limit - 1]["name"],)) if len(rest) > limit else None
    return rest[:limit], len(matching), more


def delete(context: Context, actor: Actor, name: str, request: Idempotency | None = None) -> bool:
    """Take a model out of the catalogue; files stay. True for a replay. Raises NotFound, Conflict."""
    with context.database.begin() as connection:
        if idempotency.claim(connection, actor, request) is not None:
            return True
        repo.lock_table(connection)
        row = repo.read(connection, name)
        if row is None:
            if _file_of(context.settings.models_dir, name) is not None:
                raise Conflict(f"{name!r} is a file in the models folder. Remove the file to remove the model.")
            raise _unknown(context, connection, name)
        live = repo.live_replicas(connection, [name, *row.aliases])
        if live:
            raise Conflict(f"{live} replicas of this model are not gone yet. `hostler replica stop` them first.")
        repo.delete(connection, name)
        _tell(connection, actor, "model_deleted", name)
        idempotency.remember(connection, actor, request, {"name": name})
    context.notify("models", "events")
    return False


def _checked(context: Context, actor: Actor, body: Mapping[str, Any]) -> dict[str, Any]:
    name, engine = body["engine"], ENGINES.get(body["engine"])
    if engine is None:
        near = difflib.get_close_matches(name, list(ENGINES), n=1)
        hint = f" Did you mean {near[0]}?" if near else f" There are: {', '.join(sorted(ENGINES))}."
        raise InvalidConfig(f"No engine is called {name!r}.{hint}", errors={"engine": ["Unknown engine." + hint]})
    if engine.admin_only and actor.role != "admin":
        raise Forbidden(f"The engine {name!r} runs what the request says; that needs a key of role admin.")
    source = body.get("source") or ""
    if engine.needs_model_file:
        source = str(_checked_path(context, actor, source))
    elif engine.takes_hub_model:
        source = _checked_hub_model(context, actor, source or body["name"])
    defaults = body.get("defaults") or {}
    reserved = [] if actor.role == "admin" else for_admins(defaults, {}, engine.config_schema)
    if reserved:
        raise Forbidden(f"defaults.{reserved[0]} needs a key of role admin.")
    errors = engine.validate(defaults)
    upstream = engine.upstream(defaults) if not errors else None
    if upstream is not None:
        external.check_allowed(context.settings, upstream, admin=actor.role == "admin")
    if errors:
        raise InvalidConfig(
            "The defaults are not valid. Correct the named fields.",
            errors={f"defaults.{field}": messages for field, messages in errors.items()},
        )
    aliases = list(dict.fromkeys(alias for alias in body.get("aliases") or [] if alias != body["name"]))
    if aliases and upstream is not None:
        raise InvalidConfig(
            "aliases: the external server knows the model by its own name only. Leave them out.",
            errors={"aliases": ["The external server would not know them."]},
        )
    return {
        "name": body["name"],
        "engine": name,
        "source": source,
        "format": body.get("format") or ("gguf" if source.endswith(SUFFIX) else ""),
        "defaults": defaults,
        "aliases": aliases,
        "owner": actor.key_id,
    }


def _checked_hub_model(context: Context, actor: Actor, source: str) -> str:
    """A name on the hub as it is; a path (it starts with / or .) as the folder or file it means, links followed."""
    if not is_path(source):
        if not HUB_NAME.fullmatch(source):
            words = "is no name on the hub (organisation/model) and no path (a path starts with / or .)."
            raise InvalidConfig(f"source: {source!r} {words}", errors={"source": ["No hub name and no path."]})
        return source
    path = _inside_models(context, actor, source)
    if not path.exists():
        raise InvalidConfig(f"source: there is no folder {path}.", errors={"source": ["No such folder."]})
    return str(path)


def own_source(context: Context, actor: Actor, engine: Engine, wanted: str, *, granted: bool) -> str | None:
    """What ``wanted`` means without the catalogue: a path, or a name on the hub. None: nothing to this engine.

    Raises Forbidden for a path outside the models folder, unless an admin asks or ``granted`` it; InvalidConfig.
    """
    if not is_path(wanted):
        return wanted if engine.takes_hub_model and HUB_NAME.fullmatch(wanted) else None
    path = Path(os.path.realpath(_resolve(context, wanted))) if granted else _inside_models(context, actor, wanted)
    if path.is_file() or (path.is_dir() and engine.takes_hub_model):
        return str(path)
    told = f"There is no {'folder' if engine.takes_hub_model else 'file'} {path}."
    raise InvalidConfig(told, errors={"model_name": [told]})


def _checked_path(context: Context, actor: Actor, source: str) -> Path:
    """The file, links followed. Outside the models folder only an admin may name one: engines read it as we do."""
    if not source:
        raise InvalidConfig("source: this engine reads a file. Name its path.", errors={"source": ["Name a file."]})
    path = _inside_models(context, actor, source)
    if not path.is_file():
        raise InvalidConfig(f"source: there is no file {path}.", errors={"source": ["No such file."]})
    return path


def _inside_models(context: Context, actor: Actor, source: str) -> Path:
    path = Path(os.path.realpath(_resolve(context, source)))
    inside = path.is_relative_to(os.path.realpath(context.settings.models_dir))
    if not inside and actor.role != "admin":
        raise Forbidden("It lies outside HOSTLER_MODELS_DIR; that needs a key of role admin.")
    return path


def _resolve(context: Context, source: str) -> Path:
    return Path(os.path.normpath(context.settings.models_dir / source))


def _scan(models_dir: Path) -> list[ModelFile]:
    # a file name may hold bytes that are no text, or more than a name may
    return [file for file in scan_models(models_dir) if file.name.isprintable() and len(file.name) <= LONGEST_NAME]


def _file_of(models_dir: Path, name: str) -> ModelFile | None:
    """The folder's file that the name means; found without reading the folder, for every create asks."""
    if not name or "/" in name or "\0" in name or name.startswith(".") or len(name) > LONGEST_NAME:
        return None
    path = models_dir / (name + SUFFIX)
    try:
        return ModelFile(name, path, path.stat().st_size, header_problem(path)) if path.is_file() else None
    except OSError:
        # it went away between two looks
        return None


def _from_file(file: ModelFile) -> dict[str, Any]:
    return {
        "name": file.name,
        "engine": FILE_ENGINE,
        "source": str(file.path),
        "format": "gguf",
        "defaults": {},
        "aliases": [],
        "owner": None,
        "created_at": None,
        "problem": f"{file.path} {file.problem}" if file.problem else "",
    }


def _found(context: Context, connection: Connection, name: str) -> dict[str, Any]:
    found = find(context, connection, name)
    if found is None:
        raise _unknown(context, connection, name)
    return found


def _unknown(context: Context, connection: Connection, name: str) -> NotFound:
    near = difflib.get_close_matches(name, names(context, connection), n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return NotFound(f"There is no model {name!r}.{hint} `hostler model list` shows them.")


def _tell(connection: Connection, actor: Actor, kind: str, name: str) -> None:
    events.insert(connection, kind=kind, actor=actor.name, cause="request", message=name, request_id=actor.request_id)


def _body(model: Mapping[str, Any]) -> dict[str, Any]:
    return {"problem": "", **model, "defaults": mask(model["defaults"]), "in_catalogue": model["owner"] is not None}
