"""Who listens on a TCP port: the question that keeps one model's users from another model's answers."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from workers.backends.proc import open_files

_LISTEN = "0A"
_LOOPBACK_4 = "0100007F"
_ANY_4 = "00000000"
_ANY_6 = "0" * 32
_LOOPBACK_6 = "0" * 24 + "01000000"
_MAPPED = "0000000000000000FFFF0000"


class Listeners:
    """The listening sockets of this host as they were when first asked for: one reading serves a whole batch."""

    def __init__(self) -> None:
        self._by_port: dict[int, dict[str, set[str]]] | None = None

    def sockets(self, host: str, port: int) -> set[str]:
        """Inodes of the sockets that a connection to ``host:port`` may reach: the most specific address wins."""
        if self._by_port is None:
            self._by_port = {}
            for family in ("tcp", "tcp6"):
                self._read(family, self._by_port)
        addresses = self._by_port.get(port, {})
        for address in _reached_by(host):
            if address in addresses:
                return addresses[address]
        return set()

    @staticmethod
    def _read(family: str, found: dict[int, dict[str, set[str]]]) -> None:
        table = Path(f"/proc/net/{family}")
        if not table.exists():
            return  # a host without IPv6
        with table.open() as file:
            next(file, None)
            for line in file:
                words = line.split()
                if words[3] != _LISTEN:
                    break  # the kernel lists every listening socket first (Documentation/networking/proc_net_tcp)
                address, _, port = words[1].partition(":")
                found.setdefault(int(port, 16), {}).setdefault(address, set()).add(words[9])


def owns_all(pids: Iterable[int], sockets: set[str]) -> bool:
    """Whether the processes hold every one of ``sockets`` (with SO_REUSEPORT a foreign one may stand beside)."""
    missing = {f"socket:[{inode}]" for inode in sockets}
    for pid in pids:
        for number in open_files(pid):
            try:
                missing.discard(os.readlink(f"/proc/{pid}/fd/{number}"))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            if not missing:
                return True
    return not missing


def _reached_by(host: str) -> tuple[str, ...]:
    if host in ("127.0.0.1", "localhost", "0.0.0.0"):
        exact: tuple[str, ...] = (_LOOPBACK_4, _MAPPED + _LOOPBACK_4)
    elif host in ("::1", "::"):
        return _LOOPBACK_6, _ANY_6
    else:
        exact = tuple(found for address in (_hex_4(host),) if address for found in (address, _MAPPED + address))
    return *exact, _ANY_4, _ANY_6


def _hex_4(host: str) -> str:
    parts = host.split(".")
    if len(parts) != 4 or not all(part.isdigit() for part in parts):
        return ""
    return "".join(f"{int(part):02X}" for part in reversed(parts))
