"""The kernel's list of listening TCP sockets, asked for by netlink (``man 7 sock_diag``).

``/proc/net/tcp`` says the same, but writing it out walks the whole table of connections: milliseconds instead of
microseconds, at each look at each engine that is about to be ready.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
_DONE, _ERROR = 3, 2
_REQUEST_DUMP = 0x1 | 0x300
_LISTEN = 1 << 10
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port id
_REQUEST = struct.Struct("=BBBBI48x")  # family, protocol, extensions, pad, states, socket id
_ANSWER = struct.Struct("=BBBB2s2s16s16s12x4I I")  # family, state, timer, retransmits, ports, addresses, ..., inode


def listening(family: int) -> Iterator[tuple[bytes, int, int]]:
    """Address (4 or 16 bytes in network order), port and inode of each listening socket of AF_INET or AF_INET6.

    Raises OSError where the kernel does not offer it.
    """
    width = 4 if family == socket.AF_INET else 16
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
        kernel.settimeout(1)
        request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, _LISTEN)
        header = _HEADER.pack(_HEADER.size + _REQUEST.size, _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0)
        kernel.sendall(header + request)
        while True:
            for kind, body in _messages(kernel.recv(1 << 16)):
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    code = struct.unpack_from("=i", body)[0]
                    raise OSError(-code, "the kernel tells no sockets")
                _, _, _, _, port, _, address, *rest = _ANSWER.unpack_from(body)
                yield address[:width], int.from_bytes(port, "big"), rest[-1]


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, place)
        yield kind, data[place + _HEADER.size : place + length]
        place += (length + 3) & ~3
