"""A number that the processes of one host share: it is another one when somebody changed something meanwhile.

Who writes it after his commit, and reads it before he answers from memory, answers with all that was committed on this
host before he was asked; it costs no query and no system call.
"""

from __future__ import annotations

import mmap
import os
import secrets
import struct
from pathlib import Path

_NUMBER = struct.Struct("<Q")


class Mark:
    """Kept in a file that all processes map. Where there can be none, ``read`` never gives the same number twice."""

    def __init__(self, path: Path) -> None:
        self._shared: mmap.mmap | None = None
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        try:
            if os.fstat(descriptor).st_size < _NUMBER.size:
                os.ftruncate(descriptor, _NUMBER.size)
            self._shared = mmap.mmap(descriptor, _NUMBER.size)
        finally:
            os.close(descriptor)

    def read(self) -> int:
        return int(_NUMBER.unpack_from(self._shared)[0]) if self._shared is not None else secrets.randbits(64)

    def change(self) -> None:
        """Something was committed. Two at once need no lock: either number is new to who reads it."""
        if self._shared is not None:
            _NUMBER.pack_into(self._shared, 0, secrets.randbits(64))
