"""Who listens on a TCP port: the question that keeps one model's users from another model's answers."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from workers.backends.proc import open_files
from workers.backends.sockdiag import listening

_LISTEN = "0A"
_ANY_4, _ANY_6 = IPv4Address(0), IPv6Address(0)
_MAPPED = bytes(10) + b"\xff\xff"
Address = IPv4Address | IPv6Address


class Listeners:
    """The listening sockets of this host as they were when first asked for: one reading serves a whole batch."""

    def __init__(self) -> None:
        self._by_port: dict[int, dict[bytes, set[str]]] | None = None

    def sockets(self, host: str, port: int) -> set[str]:
        """Inodes of the sockets that a connection to ``host:port`` may reach: the most specific address wins."""
        if self._by_port is None:
            self._by_port = {}
            for address, at, inode in _all_listening():
                self._by_port.setdefault(at, {}).setdefault(address, set()).add(str(inode))
        addresses = self._by_port.get(port, {})
        for wanted in _reached_by(host):
            if wanted in addresses:
                return addresses[wanted]
        return set()


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


def _all_listening() -> Iterator[tuple[bytes, int, int]]:
    for family, table in ((socket.AF_INET, "tcp"), (socket.AF_INET6, "tcp6")):
        try:
            found = list(listening(family))
        except OSError:
            found = list(read_table(Path("/proc/net") / table))
        yield from found


def read_table(path: Path) -> Iterator[tuple[bytes, int, int]]:
    """The same from ``/proc/net/tcp`` or ``tcp6``, for kernels without sock_diag; nothing without such a file."""
    if not path.exists():
        return
    with path.open() as file:
        next(file, None)
        for line in file:
            words = line.split()
            if words[3] != _LISTEN:
                return  # the kernel lists every listening socket first (Documentation/networking/proc_net_tcp)
            address, _, port = words[1].partition(":")
            # each 32 bits are written as the host's own number
            parts = [bytes.fromhex(address[place : place + 8])[::-1] for place in range(0, len(address), 8)]
            yield b"".join(parts), int(port, 16), int(words[9])


def _reached_by(host: str) -> list[bytes]:
    """Addresses as sockets have them, that take a connection to ``host``: its own before "any"."""
    address = _address(host)
    if address is None:
        return [_ANY_4.packed, _ANY_6.packed]
    if address.version == 6:
        return [address.packed, _ANY_6.packed]
    return [address.packed, _MAPPED + address.packed, _ANY_4.packed, _ANY_6.packed]


def _address(host: str) -> Address | None:
    if host in ("localhost", "0.0.0.0"):
        return ip_address("127.0.0.1")
    if host == "::":
        return ip_address("::1")
    try:
        return ip_address(host)
    except ValueError:
        return None
