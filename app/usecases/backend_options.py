"""A backend's options, checked by the JSON Schema that its workers wrote down: of a pool, and of one replica."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator
from sqlalchemy import Connection

from app.db.repos import pools as repo
from app.errors import Forbidden, InvalidConfig


def check(connection: Connection, backend: str, options: Mapping[str, Any], field: str) -> None:
    """Raises InvalidConfig that names each wrong option below ``field``, or the backend when there is none."""
    row = repo.backend(connection, backend)
    if row is None:
        raise _unknown(backend, repo.backend_names(connection))
    errors: dict[str, list[str]] = {}
    for error in Draft202012Validator(row.options_schema).iter_errors(dict(options)):
        name = ".".join([field, *(str(part) for part in error.absolute_path)])
        errors.setdefault(name, []).append(error.message[:300])
    if errors:
        first = next(iter(errors))
        raise InvalidConfig(f"{first}: {errors[first][0]}", errors=errors)


def check_role(
    connection: Connection, backend: str, options: Mapping[str, Any], granted: Mapping[str, Any], *, admin: bool
) -> None:
    """Raises Forbidden for an option that only role admin may set (``x-admin`` in the schema).

    ``granted`` is what an admin set for the whole pool: that may be used.
    """
    row = repo.backend(connection, backend)
    marked = (row.options_schema.get("properties") or {}) if row is not None else {}
    for name, value in options.items():
        if marked.get(name, {}).get("x-admin") and granted.get(name) != value and not admin:
            raise Forbidden(f"replica_config.backend_options.{name} needs a key of role admin.")


def knows(connection: Connection, backend: str, option: str) -> bool:
    """Whether the backend has an option of that name."""
    row = repo.backend(connection, backend)
    return row is not None and option in (row.options_schema.get("properties") or {})


def _unknown(backend: str, known: list[str]) -> InvalidConfig:
    near = difflib.get_close_matches(backend, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else f" There are: {', '.join(known)}."
    return InvalidConfig(f"No backend is called {backend!r}.{hint}", errors={"backend": ["Unknown backend." + hint]})
