"""Which model a request means, and what can be asked of the replicas behind it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from app.db.repos import models as catalogue
from app.db.repos import served as repo
from app.db.repos import services as services_repo
from app.engines.dialects.base import Dialect
from app.engines.dialects.openai import OpenAIDialect
from app.engines.registry import ENGINES, STORES
from app.errors import Contradiction, ModelForbidden, ModelNotFound, ModelRequired, NotFound, NotOffered
from app.usecases import models, service_refs
from app.usecases.context import Actor, Context
from app.usecases.plans import near
from app.usecases.registered_models import FRESH_S, registered_models

#: Names that an error lists.
SHOWN = 20


@dataclass(frozen=True)
class Target:
    """Where a request goes. One of ``route``, ``service_id`` and ``replica_id`` says by what the gateway finds it.

    ``name`` is the model's own, ``sent`` what its replicas know it by.
    """

    name: str
    sent: str
    dialect: Dialect
    #: whether a replica was ready when this was looked up
    ready: bool = False
    route: str = ""
    service_id: str = ""
    replica_id: str = ""


def choose(context: Context, actor: Actor, asked: str | None, *, service_id: str = "", replica_id: str = "") -> Target:
    """The target of a request that names the model ``asked``, or none.

    Raises ModelRequired, ModelNotFound, ModelForbidden, NotOffered; with a service or replica NotFound, Contradiction.
    """
    with context.database.read() as connection:
        if replica_id:
            row = repo.kind_of_replica(connection, replica_id)
            if row is None:
                raise NotFound(f"There is no replica {replica_id}. `hostler replica list` shows what there is.")
            return _addressed(context, connection, actor, asked, [row], "The replica", replica_id=replica_id)
        if service_id:
            rows = repo.kinds_of_service(connection, service_id)
            if not rows and services_repo.is_there(connection):
                # a name is as good as the id
                service_id = service_refs.find_id(connection, service_id) or service_id
                rows = repo.kinds_of_service(connection, service_id)
            if not rows:
                raise NotFound(
                    f"There is no service {service_id}, or nothing of it is left. See `hostler service list`."
                )
            return _addressed(context, connection, actor, asked, rows, "The service", service_id=service_id)
        asked = asked or _default(context, connection, actor)
        name, names = names_of(connection, asked)
        _check_allowed(actor, asked, name)
        rows = repo.kinds_of(connection, names, STORES)
        registered = name in registered_models(context, connection)
        if not rows and not registered and models.find(context, connection, asked) is None:
            registered = name in registered_models(context, connection, kept_s=FRESH_S)
            if not registered:
                raise _unknown(context, connection, actor, asked)
    if registered:
        # what a registered server is, nobody says: it is asked in what all speak
        return Target(name, asked, _COMMON, ready=True, route=asked)
    return Target(name, _sent(rows, asked), _dialect(rows, asked), _any_ready(rows), route=asked)


def choose_service(context: Context, actor: Actor, service_id: str) -> Target | None:
    """The target of a request for whatever a service serves: while it changes to another model, either, with no model
    ``sent``. None while it has no replica.

    Raises ModelForbidden for a key that is not allowed all of it, NotOffered.
    """
    with context.database.read() as connection:
        rows = repo.kinds_of_service(connection, service_id)
        if not rows:
            return None
        for other in sorted({row.model_name for row in rows}):
            _check_allowed(actor, other, names_of(connection, other)[0])
        served = sorted({row.model_name for row in _ready(rows)})
        sent = served[0] if len(served) == 1 else ""
        return Target(served[0], sent, _dialect(rows, served[0]), _any_ready(rows), service_id=service_id)


def visible_names(actor: Actor, name: str, names: Iterable[str]) -> list[str]:
    """By which names of one model the key may ask for it, the model's own first; one will do for a key without limits.

    As the gateway judges: allowed is what is asked for by name, or the model that the name means.
    """
    if actor.models is None or name in actor.models:
        return [name]
    return [one for one in names if one in actor.models]


def _addressed(
    context: Context,
    connection: Connection,
    actor: Actor,
    asked: str | None,
    rows: list[Any],
    what: str,
    **address: str,
) -> Target:
    """A target by service or replica: of one model, that the key is allowed, and that the request means too."""
    served = {row.model_name for row in rows}
    for other in sorted(served, reverse=True):
        # every one of them, before any is named; the last is the first by name
        name, names = names_of(connection, other)
        _check_allowed(actor, name, name)
    if not served <= {name, *names}:
        shown = ", ".join(sorted(served)[:SHOWN])
        raise Contradiction(
            f"{what} serves several models: {shown}. Send model_id alone.", errors={"model_id": ["Which of them?"]}
        )
    if asked and asked not in {name, *names}:
        raise Contradiction(
            f"{what} serves {name!r}, not {asked!r}. Send only one of them.", errors={"model_id": ["Another model."]}
        )
    return Target(name, _sent(rows, name), _dialect(rows, name), _any_ready(rows), **address)


def _default(context: Context, connection: Connection, actor: Actor) -> str:
    if context.settings.default_model:
        return context.settings.default_model
    ready: dict[str, None] = {}
    # a limited key chooses among its own
    most = 10_000 if actor.models is not None else SHOWN + 1
    for found in (*repo.ready_names(connection, most, STORES), *sorted(registered_models(context, connection))):
        name, names = names_of(connection, found)
        ready |= dict.fromkeys(visible_names(actor, name, names)[:1])
        if len(ready) > SHOWN:
            break
    if len(ready) == 1:
        return next(iter(ready))
    listed = list(ready)
    if not listed:
        raise ModelRequired(
            "No model_id was sent, and no model is ready. `hostler replica create --model-name NAME` serves one.",
            errors={"model_id": ["Required while no model is ready."]},
            extra={"models": []},
        )
    shown = ", ".join(listed[:SHOWN]) + (" and more" if len(listed) > SHOWN else "")
    raise ModelRequired(
        f"Several models are ready: {shown}. Send one of them as model_id, or set HOSTLER_DEFAULT_MODEL.",
        errors={"model_id": ["Required while several models are ready."]},
        extra={"models": listed[:SHOWN]},
    )


def names_of(connection: Connection, asked: str) -> tuple[str, list[str]]:
    """(the model's own name, every name it goes by, the asked one among them)."""
    row = catalogue.find(connection, asked)
    return (row.name, [row.name, *row.aliases]) if row is not None else (asked, [asked])


def _check_allowed(actor: Actor, asked: str, name: str) -> None:
    if not visible_names(actor, name, [asked]):
        raise ModelForbidden(
            f"Your key is not allowed the model {asked!r}. `GET /models` lists what it is allowed.",
            errors={"model_id": ["Not allowed with this key."]},
        )


def _unknown(context: Context, connection: Connection, actor: Actor, asked: str) -> ModelNotFound:
    known = set(models.names(context, connection)) | set(repo.ready_names(connection, 1000, STORES))
    if actor.models is not None:
        known &= set(actor.models)
    # these very words are promised
    return ModelNotFound(
        f"Model '{asked}' not found", errors={"model_id": [f"Unknown.{near(asked, known)} GET /models lists them."]}
    )


def _sent(rows: list[Any], asked: str) -> str:
    """The name that the replicas check a request's ``model`` against: their own, where it is one."""
    own = {row.model_name for row in _ready(rows)}
    return own.pop() if len(own) == 1 else asked


def _dialect(rows: list[Any], asked: str) -> Dialect:
    """What all that may answer understand: which of them will, only the gateway knows."""
    if not rows:
        # nothing runs: the gateway says what becomes of the request
        return _COMMON
    spoken: dict[str, Dialect] = {}
    for row in _ready(rows):
        engine = ENGINES.get(row.engine)
        dialect = engine.dialect(_config(row)) if engine is not None else None
        if dialect is not None:
            spoken[dialect.name] = dialect
    if not spoken:
        engines = ", ".join(sorted({row.engine for row in rows}))
        raise NotOffered(f"Model {asked!r} is served by {engines}, set up so that it makes no text. Ask another model.")
    return next(iter(spoken.values())) if len(spoken) == 1 else _COMMON


def _ready(rows: list[Any]) -> list[Any]:
    return [row for row in rows if row.ready] or rows


def _any_ready(rows: list[Any]) -> bool:
    return any(row.ready for row in rows)


def _config(row: Any) -> Mapping[str, Any]:
    return row.config or {}


_COMMON: Dialect = OpenAIDialect(tells_ids=False)
