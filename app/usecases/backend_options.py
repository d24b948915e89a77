"""A backend's options, checked by the JSON Schema that its workers wrote down: of a pool, and of one replica."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from sqlalchemy import Connection

from app.db.repos import keys
from app.db.repos import pools as repo
from app.db.repos.newer import knows_services
from app.domain.abilities import SPANS_HOSTS
from app.domain.mounts import refused_mounts
from app.domain.slurm_limits import merged_flags, refused_options
from app.domain.slurm_shared import MOST_SEATS, SEATS, seats_of
from app.errors import Forbidden, InvalidConfig, Unavailable
from app.usecases.context import Actor, Context
from app.usecases.option_rules import broken_rules
from app.usecases.resource_amounts import MEBI, amounts


@dataclass(frozen=True)
class Wish:
    """What a create says of where and how its backend runs it. ``granted`` are options that an admin set, in a pool's
    defaults or a recipe, and that therefore anybody may use."""

    own: Mapping[str, Any]
    granted: Mapping[str, Any]
    resources: Mapping[str, Any]
    gpus: int = 0
    image: str = ""
    engine: str = ""
    #: absolute paths in the command that is to run
    programs: Sequence[str] = ()
    #: ``Engine.spans_hosts``
    spans_hosts: bool = False
    #: so many replicas a recipe wants in one job, where jobs can be shared and nobody says otherwise
    per_job: int = 1


def settle(ctx: Context, connection: Connection, actor: Actor, pool: Any, wish: Wish) -> dict[str, Any]:
    """The options that a replica has: the pool's, under what its resources come to, under its own, under what its key
    fixes. Raises InvalidConfig and Forbidden, which name the field."""
    fixed = _fixed_by_key(ctx, connection, actor.key_id).get(pool.backend) or {}
    resources = amounts(wish.resources)
    if not (fixed or resources or wish.own or wish.image or wish.per_job > 1):
        return dict(pool.options)
    row = repo.backend(connection, pool.backend)
    if row is None:
        raise _unknown(pool.backend, repo.backend_names(connection))
    schema = row.options_schema.get("properties") or {}
    if wish.own:
        _check_partly(row.options_schema, wish.own, _FIELD)
        _check_role(schema, wish.own, wish.granted, admin=actor.role == "admin")
    _check_nodes(row, resources, wish)
    shared = _shared_by_recipe(schema, resources, wish, pool.options, fixed)
    asked = _from_resources(row.options_schema, _part_of(resources, shared.get(SEATS, 1)), pool.options)
    _check_fixed(fixed, wish)
    if "allow" in schema:
        known = {**pool.options, **wish.granted, **fixed}
        refused = refused_options(known, {**asked, **wish.own}, admin=actor.role == "admin")
        _refuse({_named(name, wish): told for name, told in refused.items()})
    if "mounts" in wish.own and "allowed_mounts" in schema:
        _check_mounts(pool.options, wish, fixed, admin=actor.role == "admin")
    own = dict(wish.own)
    if "allow" in schema and "extra" in own:
        own["extra"] = merged_flags(pool.options.get("extra", ()), own["extra"])
    settled = {**shared, **pool.options, **asked, **own, **fixed}
    settled |= {name: value for name, value in _with_image(schema, settled, wish.image).items() if name not in fixed}
    if resources.get("nodes", 1) > 1 and seats_of(settled) > 1:
        told = f"Must be 1: {SEATS} is {settled[SEATS]}, and only replicas on one host share a job."
        raise InvalidConfig(f"resources.nodes: {told}", errors={"resources.nodes": [told]})
    _check_whole(row.options_schema, pool, settled, {**asked, **own}, wish)
    return settled


def _shared_by_recipe(
    schema: Mapping[str, Any], resources: Mapping[str, Any], wish: Wish, *others: Mapping[str, Any]
) -> dict[str, int]:
    """How many replicas share a job as the recipe has it; nothing where somebody else says so, or none can."""
    said = any(SEATS in options for options in (wish.own, *others))
    if wish.per_job <= 1 or SEATS not in schema or said or resources.get("nodes", 1) > 1:
        return {}
    return {SEATS: min(wish.per_job, MOST_SEATS)}


def _part_of(resources: Mapping[str, Any], seats: int) -> Mapping[str, Any]:
    """What one of so many gets: a recipe says what all of them take together."""
    parts = {name: resources[name] / seats for name in ("cpu", "memory") if name in resources and seats > 1}
    return {**resources, **parts}


def image_left_out(
    connection: Connection, pool: str, backend: str, options: Mapping[str, Any], image: str, *, asked: bool
) -> str:
    """Why a replica with the settled ``options`` does not run in a recipe's ``image``, and what to set.

    Empty when it does, and where nobody asked for it who did not write the recipe and no pool of that backend could.
    """
    row = repo.backend(connection, backend)
    schema = (row.options_schema.get("properties") or {}) if row is not None else {}
    if _with_image(schema, options, image):
        return ""
    if _APPTAINER in schema:
        return f"image is left out: pool {pool} runs none. An admin sets its option {_APPTAINER}, which names one."
    return f"image is left out: pool {pool} runs no images." if asked else ""


def not_of_pool(
    ctx: Context, connection: Connection, actor: Actor, pool: Any, wish: Wish, settled: Mapping[str, Any]
) -> list[str]:
    """Which of the ``settled`` options somebody else than the pool decided: those go on as they are when it changes."""
    fixed = _fixed_by_key(ctx, connection, actor.key_id).get(pool.backend) or {}
    own = {*wish.own, *fixed}
    return sorted(name for name in settled if name in own or settled[name] != pool.options.get(name))


def check_of_key(connection: Connection, options: Mapping[str, Mapping[str, Any]]) -> None:
    """Options per backend that a key is to fix. Raises InvalidConfig that names each wrong one, and Unavailable."""
    if not knows_services(connection):
        raise Unavailable("The database was not migrated to this version yet. Run `hostler up`.", retry_after_s=5)
    for backend, fixed in options.items():
        row = repo.backend(connection, backend)
        field = f"backend_options.{backend}"
        if row is None:
            error = _unknown(backend, repo.backend_names(connection))
            raise InvalidConfig(error.detail, errors={field: error.errors["backend"]})
        _check_partly(row.options_schema, fixed, field)


def check(connection: Connection, backend: str, options: Mapping[str, Any], field: str) -> None:
    """Raises InvalidConfig that names each wrong option below ``field``, or the backend when there is none."""
    row = repo.backend(connection, backend)
    if row is None:
        raise _unknown(backend, repo.backend_names(connection))
    _check(row.options_schema, options, field)


_FIELD = "replica_config.backend_options"
_CAME_FROM = {
    "cpus": "resources.cpu",
    "memory": "resources.memory",
    "memory_bytes": "resources.memory",
    "time_limit": "resources.time_limit_s",
}


def _fixed_by_key(ctx: Context, connection: Connection, key_id: str) -> Mapping[str, Any]:
    if key_id not in ctx.key_options:
        if len(ctx.key_options) >= _KEYS_KEPT:
            ctx.key_options.clear()
        found = keys.backend_options(connection, key_id)
        if found is None:
            return {}
        ctx.key_options[key_id] = found
    kept: Mapping[str, Any] = ctx.key_options[key_id]
    return kept


#: Keys whose options a process keeps in mind.
_KEYS_KEPT = 4096


def _check_mounts(of_pool: Mapping[str, Any], wish: Wish, fixed: Mapping[str, Any], *, admin: bool) -> None:
    """Raises Forbidden for mounts that no host need be asked about; links are followed where they are made."""
    allowed = {**of_pool, **wish.own, **fixed}.get("allowed_mounts", ())
    given = {"mounts": [*wish.granted.get("mounts", ()), *fixed.get("mounts", ())]}
    refused = refused_mounts(wish.own.get("mounts", ()), of_pool, given, allowed, admin=admin, programs=wish.programs)
    _refuse({f"{_FIELD}.{name}": told for name, told in refused.items()})


def _check_nodes(row: Any, resources: Mapping[str, Any], wish: Wish) -> None:
    """Raises InvalidConfig for more hosts than backend and engine have one replica span, and for GPUs not shared out
    evenly."""
    nodes, gpus = resources.get("nodes", 1), wish.gpus
    if nodes > 1 and gpus % nodes:
        told = f"Is {gpus}, which are not shared out evenly over {nodes} hosts."
        raise InvalidConfig(f"resources.gpus: {told}", errors={"resources.gpus": [told]})
    if nodes > 1 and (row.host_bound or SPANS_HOSTS in row.lacks):
        told = f"Must be 1: backend {row.name} does not span one replica over several hosts."
        raise InvalidConfig(f"resources.nodes: {told}", errors={"resources.nodes": [told]})
    if nodes > 1 and not wish.spans_hosts:
        # each part would be told the leader's address, which is on one of the hosts
        told = f"Must be 1: engine {wish.engine} does not span one replica over several hosts; engine command can."
        raise InvalidConfig(f"resources.nodes: {told}", errors={"resources.nodes": [told]})


def _from_resources(
    options_schema: Mapping[str, Any], resources: Mapping[str, Any], of_pool: Mapping[str, Any]
) -> dict[str, Any]:
    """``cpu``, ``memory`` and ``time_limit_s`` as options, where the backend has such. What only an admin may set is
    not taken from a request where the pool has it. Raises InvalidConfig for amounts that the backend does not take."""
    schema = options_schema.get("properties") or {}
    found: dict[str, Any] = {}
    if "cpu" in resources:
        cpus = resources["cpu"]
        found["cpus"] = ceil(cpus) if (schema.get("cpus") or {}).get("type") == "integer" else cpus
    if "memory" in resources:
        size = resources["memory"]
        found |= {"memory": f"{ceil(size / MEBI)}M", "memory_bytes": size}
    if "time_limit_s" in resources:
        found["time_limit"] = max(1, ceil(resources["time_limit_s"] / 60))
    taken = {
        name: value
        for name, value in found.items()
        if name in schema and not (schema[name].get("x-admin") and name in of_pool)
    }
    errors: dict[str, list[str]] = {}
    for path, told in broken_rules(options_schema, taken, partly=True):
        errors.setdefault(_CAME_FROM[path[0]], []).append(told)
    _raise_invalid(errors)
    return taken


def _named(option: str, wish: Wish) -> str:
    """The field of the request that an option came from."""
    return f"{_FIELD}.{option}" if option in wish.own else _CAME_FROM.get(option, f"{_FIELD}.{option}")


def _refuse(refused: Mapping[str, str]) -> None:
    if refused:
        field, told = next(iter(refused.items()))
        raise Forbidden(f"{field}: {told}", errors={name: [why] for name, why in refused.items()})


def _with_image(schema: Mapping[str, Any], options: Mapping[str, Any], image: str) -> dict[str, Any]:
    """The option by which a recipe's image is run, where the backend runs images, or the pool by Apptainer."""
    if not image:
        return {}
    if "image" in schema:
        return {"image": image}
    if _APPTAINER in schema and options.get(_APPTAINER):
        # a name without a place is one of a registry, to Docker and to recipes
        source = image if image.startswith("/") or "://" in image else f"docker://{image}"
        return {_APPTAINER: {**options[_APPTAINER], "image": source}}
    return {}


_APPTAINER = "apptainer"


def _check_whole(
    schema: Mapping[str, Any], pool: Any, settled: Mapping[str, Any], asked: Mapping[str, Any], wish: Wish
) -> None:
    """Raises InvalidConfig where options that are right by themselves do not go together: the pool's, the request's
    and the key's."""
    errors: dict[str, list[str]] = {}
    for path, told in broken_rules(schema, settled):
        # what the request could leave out to be right, else what it said, else the pool
        guilty = [name for name in asked if _is_right_without(schema, pool.options, settled, name)]
        if not guilty and path and path[0] in asked:
            guilty = [path[0]]
        if guilty:
            errors.setdefault(_named(guilty[0], wish), []).append(
                f"It does not go together with the pool's options, see `hostler pool get {pool.name}`:"
                f" {'.'.join(path)}: {told}"
            )
        else:
            errors.setdefault("pool", []).append(
                f"Its options do not go together with your key's; `hostler pool get {pool.name}` shows them:"
                f" {'.'.join(path)}: {told}"
            )
    _raise_invalid(errors)


def _is_right_without(
    schema: Mapping[str, Any], of_pool: Mapping[str, Any], settled: Mapping[str, Any], name: str
) -> bool:
    rest = {option: value for option, value in settled.items() if option != name}
    if name in of_pool:
        rest[name] = of_pool[name]
    return not any(True for _ in broken_rules(schema, rest))


def _check_fixed(fixed: Mapping[str, Any], wish: Wish) -> None:
    """Raises Forbidden for an option that the request sets to something else than its key does."""
    left = [
        name
        for name, value in wish.own.items()
        if name in fixed and value != fixed[name] and (name not in wish.granted or value != wish.granted[name])
    ]
    _refuse({f"{_FIELD}.{name}": f"Your key fixes it to {fixed[name]!r}. Leave it out." for name in left})


def _check_partly(schema: Mapping[str, Any], options: Mapping[str, Any], field: str) -> None:
    """As one part of the options, whose other parts come from elsewhere: none of them need be there."""
    _check(schema, options, field, partly=True)


def _check(schema: Mapping[str, Any], options: Mapping[str, Any], field: str, *, partly: bool = False) -> None:
    errors: dict[str, list[str]] = {}
    for path, told in broken_rules(schema, options, partly=partly):
        errors.setdefault(".".join([field, *path]), []).append(told)
    _raise_invalid(errors)


def _raise_invalid(errors: dict[str, list[str]]) -> None:
    if errors:
        first = next(iter(errors))
        raise InvalidConfig(f"{first}: {errors[first][0]}", errors=errors)


def _check_role(
    marked: Mapping[str, Any], options: Mapping[str, Any], granted: Mapping[str, Any], *, admin: bool
) -> None:
    """Raises Forbidden for an option that only role admin may set (``x-admin`` in the schema).

    ``granted`` is what an admin set for the whole pool: that may be used.
    """
    for name, value in options.items():
        if marked.get(name, {}).get("x-admin") and granted.get(name) != value and not admin:
            told = f"{_FIELD}.{name} needs a key of role admin."
            raise Forbidden(told, errors={f"{_FIELD}.{name}": ["Needs a key of role admin."]})


def _unknown(backend: str, known: list[str]) -> InvalidConfig:
    near = difflib.get_close_matches(backend, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else f" There are: {', '.join(known)}."
    return InvalidConfig(f"No backend is called {backend!r}.{hint}", errors={"backend": ["Unknown backend." + hint]})
