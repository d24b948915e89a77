"""Hosts that see each other only as links between them allow: network namespaces of this machine, and their links.

What runs in one has that host's addresses and its own loopback. Folders are shared by all, as on one machine.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_PLACE = Path("/run/netns")
_BRIDGE = "br0"


@dataclass
class Host:
    """One namespace; ``addresses`` are those of its links, in their order."""

    name: str
    namespace: str
    addresses: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return self.addresses[0]

    def argv(self, *argv: str) -> list[str]:
        """A command line that runs ``argv`` there."""
        return ["nsenter", f"--net={_PLACE / self.namespace}", "--", *argv]

    def do(self, act: Callable[[], T]) -> T:
        """What ``act`` returns; sockets that it makes are that host's."""
        with ThreadPoolExecutor(1, initializer=self._enter) as thread:
            return thread.submit(act).result()

    def _enter(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = os.open(_PLACE / self.namespace, os.O_RDONLY)
        try:
            if libc.setns(descriptor, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot enter {self.namespace}")
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class Link:
    """Two hosts on one switch. Cut inside that: both ends stay as they are, and nothing arrives."""

    ends: tuple[tuple[Host, str], tuple[Host, str]]
    switch: Host
    ports: tuple[str, str]

    def cut(self) -> None:
        """Packets are lost from now on; nobody is told so."""
        _must(*self.switch.argv("ip", "link", "set", self.ports[0], "nomaster"))

    def heal(self) -> None:
        _must(*self.switch.argv("ip", "link", "set", self.ports[0], "master", _BRIDGE))

    def unplug(self, host: Host) -> None:
        """Take the plug out at that host: its address there is not reachable even from itself."""
        _must(*host.argv("ip", "link", "set", self._device(host), "down"))

    def plug_in(self, host: Host) -> None:
        _must(*host.argv("ip", "link", "set", self._device(host), "up"))

    def _device(self, host: Host) -> str:
        return next(device for one, device in self.ends if one is host)


class Net:
    """Hosts and links of one test."""

    def __init__(self) -> None:
        self._mark = secrets.token_hex(3)
        self._count = 0
        self.hosts: list[Host] = []

    def host(self, name: str) -> Host:
        made = Host(name, f"ht-{self._mark}-{name}")
        _must("ip", "netns", "add", made.namespace)
        self.hosts.append(made)
        _must(*made.argv("ip", "link", "set", "lo", "up"))
        return made

    def link(self, one: Host, other: Host, network: str) -> Link:
        """A cable; ``network`` is like ``10.77.1``: the first host is ``.1`` there, the other ``.2``."""
        self._count += 1
        switch = self.host(f"switch{self._count}")
        _must(*switch.argv("ip", "link", "add", _BRIDGE, "type", "bridge"))
        _must(*switch.argv("ip", "link", "set", _BRIDGE, "up"))
        ends, ports = [], []
        for number, host in enumerate((one, other), 1):
            device, port = (f"{end}{self._mark}{self._count}{number}" for end in "hs")
            _must("ip", "link", "add", device, "type", "veth", "peer", "name", port)
            _must("ip", "link", "set", device, "netns", host.namespace)
            _must("ip", "link", "set", port, "netns", switch.namespace)
            _must(*switch.argv("ip", "link", "set", port, "master", _BRIDGE))
            _must(*switch.argv("ip", "link", "set", port, "up"))
            _must(*host.argv("ip", "addr", "add", f"{network}.{number}/24", "dev", device))
            _must(*host.argv("ip", "link", "set", device, "up"))
            host.addresses.append(f"{network}.{number}")
            ends.append((host, device))
            ports.append(port)
        return Link((ends[0], ends[1]), switch, (ports[0], ports[1]))

    def close(self) -> None:
        for host in self.hosts:
            subprocess.run(["ip", "netns", "del", host.namespace], check=False, capture_output=True)


@contextmanager
def net() -> Iterator[Net]:
    """A Net whose namespaces, and with them their links, are gone afterwards."""
    made = Net()
    try:
        yield made
    finally:
        made.close()


def need_namespaces() -> None:
    """Skip the test, with the reason, where this machine lets nobody make hosts of this kind."""
    why = _why_not()
    if why:
        pytest.skip(why)


@cache
def _why_not() -> str:
    missing = [program for program in ("ip", "nsenter") if shutil.which(program) is None]
    if missing:
        return f"there is no {missing[0]} (Debian: iproute2, util-linux)"
    try:
        with net() as trial:
            link = trial.link(trial.host("a"), trial.host("b"), "10.254.254")
            link.cut()
            link.heal()
    except subprocess.CalledProcessError as error:
        return f"network namespaces cannot be made here: {(error.stderr or '').strip()}"
    return ""


def _must(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30)
