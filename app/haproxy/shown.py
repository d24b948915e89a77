"""What HAProxy shows, as values: servers, maps, figures. Pure; the forms are those of HAProxy 2.8 and later."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

#: The backend, and its table of requests in flight, of what asks one replica by its name.
ONE_REPLICA = "one_replica"

#: Bits of ``srv_admin_state``: forced maintenance, and drain.
_MAINTENANCE, _DRAIN = 0x01, 0x08


@dataclass(frozen=True)
class ShownServer:
    """One line of ``show servers state``. ``ip`` is "-" for a Unix socket."""

    backend: str
    name: str
    ip: str
    port: int
    weight: int
    #: up by its checks
    up: bool
    draining: bool
    maintenance: bool


def parse_servers(answer: str) -> dict[tuple[str, str], ShownServer]:
    """``show servers state`` -> servers by (backend, name). Raises ValueError for another form."""
    lines = iter(answer.splitlines())
    if next(lines, "") != "1":
        raise ValueError(f"not the first version of a server state: {answer[:80]!r}")
    columns = next(lines, "# ").removeprefix("# ").split(" ")
    at = {name: columns.index(name) for name in _COLUMNS}
    found = {}
    for line in lines:
        row = line.split(" ")
        if len(row) < len(columns):
            continue
        admin = int(row[at["srv_admin_state"]])
        server = ShownServer(
            backend=row[at["be_name"]],
            name=row[at["srv_name"]],
            ip=row[at["srv_addr"]],
            port=int(row[at["srv_port"]]),
            weight=int(row[at["srv_uweight"]]),
            up=row[at["srv_op_state"]] == "2",
            draining=bool(admin & _DRAIN),
            maintenance=bool(admin & _MAINTENANCE),
        )
        found[server.backend, server.name] = server
    return found


_COLUMNS = ("be_name", "srv_name", "srv_addr", "srv_op_state", "srv_admin_state", "srv_uweight", "srv_port")


def parse_map(answer: str) -> list[tuple[str, str]]:
    """``show map FILE`` -> (key, value) in the order in which they are looked up; a key may stand there twice."""
    found = []
    for line in answer.splitlines():
        reference, _, rest = line.partition(" ")
        key, _, value = rest.partition(" ")
        if reference.startswith("0x") and key:
            found.append((key, value))
    return found


def parse_figures(answer: str) -> Iterator[Mapping[str, str]]:
    """``show stat`` -> one mapping per line: ``pxname, svname, scur, qcur, status, lastchg, ...``."""
    lines = [line for line in answer.removeprefix("# ").splitlines() if line]
    return iter(csv.DictReader(lines))


def parse_table(answer: str) -> dict[str, int]:
    """``show table NAME`` -> ``conn_cur`` by key; empty for a table that it does not have."""
    found = {}
    for line in answer.splitlines():
        words = dict(word.partition("=")[::2] for word in line.split() if "=" in word)
        if "key" in words and "conn_cur" in words:
            found[words["key"]] = number(words["conn_cur"])
    return found


def number(value: str | None) -> int:
    """A figure; what HAProxy leaves out is 0."""
    return int(value) if value and value.lstrip("-").isdigit() else 0
