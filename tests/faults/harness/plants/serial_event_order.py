"""Streams that page by the serial number of an event, as if numbers were committed in the order they are given.

Taken out: the order by transaction, and the bound below which every transaction has ended. A transaction that took a
small number and commits late is then behind the place where the streams are already, and is never shown. What a stream
tells of an event, its id included, stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import text


class _AnyTransaction(int):
    """Its number when it is written down; equal to every other where places are compared: the serial decides."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    def __lt__(self, other: int) -> bool:
        return False

    def __gt__(self, other: int) -> bool:
        return False

    __hash__ = int.__hash__


class _Row:
    def __init__(self, row: Any) -> None:
        self._mapping = {**row._mapping, "xid": _AnyTransaction(row.xid)}

    def __getattr__(self, name: str) -> Any:
        return self._mapping[name]


def _behind_serial(original: Callable[..., Any]) -> Callable[..., Any]:
    of = original.__globals__

    def behind(connection: Any, cursor: tuple[int, int], filters: Any, limit: int) -> list[Any]:
        conditions, values = of["_where"](filters)
        query = f"SELECT {of['_COLUMNS']} FROM events WHERE id > :id{conditions} ORDER BY id LIMIT :limit"
        found = connection.execute(text(query), {**values, "id": cursor[1], "limit": limit})
        return [_Row(row) for row in found]

    return behind


def _serial_end(original: Callable[..., Any]) -> Callable[..., Any]:
    def settled_end(connection: Any) -> tuple[int, int]:
        newest = connection.execute(text("SELECT coalesce(max(id), 0) FROM events")).scalar_one()
        return _AnyTransaction(0), int(newest)

    return settled_end


def _settled_serial(original: Callable[..., Any]) -> Callable[..., Any]:
    behind = _behind_serial(original)

    def settled_behind(connection: Any, cursor: tuple[int, int], limit: int) -> tuple[list[Any], bool]:
        return behind(connection, cursor, {}, limit), False

    return settled_behind


def _newest_serial(original: Callable[..., Any]) -> Callable[..., Any]:
    columns = original.__globals__["_COLUMNS"]

    def newest_settled(connection: Any, limit: int) -> list[Any]:
        query = text(f"SELECT {columns} FROM events ORDER BY id DESC LIMIT :limit")
        return [_Row(row) for row in connection.execute(query, {"limit": limit})][::-1]

    return newest_settled


PATCHES: dict[str, Callable[[Any], Any]] = {
    "app.db.repos.events:behind": _behind_serial,
    "app.db.repos.events:settled_end": _serial_end,
    "app.db.repos.events:settled_behind": _settled_serial,
    "app.db.repos.events:newest_settled": _newest_serial,
}
