"""One command for a host whose login shell and its start-up files may be anything, and what of the answer is ours.

sshd hands a string to the user's login shell. Ours holds nothing that shells read differently: a fixed script for
``/bin/sh`` and words in single quotes, in which everything unusual is written in octal. Before and after the command
the script says a number that nobody else knows, on both streams: what comes before is noise of start-up files, and
without the end the answer is not whole.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from workers.transports.pump import Heard

#: The kernel takes 128 KiB as one word; the shell's own words need room too.
MOST_COMMAND_BYTES = 120 * 1024
#: ``exec`` in a subshell: a program, never a word that the shell itself would know.
_SCRIPT = (
    "n=$1; shift; "
    'for a; do shift; case $a in =*) v=${a#=}.;; *) v=$(printf "%b." "${a#?}");; esac; set -- "$@" "${v%.}"; done; '
    'printf "\\n%s begin\\n" $n; printf "\\n%s begin\\n" $n >&2; '
    '(exec "$@"); c=$?; '
    'printf "\\n%s end %s\\n" $n $c; printf "\\n%s end %s\\n" $n $c >&2'
)
#: What every shell leaves alone between single quotes.
_PLAIN = re.compile(rb"[A-Za-z0-9 _@%+=:,./~#\"$&*()<>?\[\]{}|;`^-]*")


@dataclass(frozen=True)
class Frame:
    """The command of one conversation; ``number`` is said by nobody else."""

    number: str

    @classmethod
    def new(cls) -> Frame:
        return cls(os.urandom(12).hex())

    def command(self, argv: Sequence[str]) -> str:
        """For the login shell. Raises ValueError for what cannot be a command."""
        if not argv or not argv[0] or argv[0].startswith("-"):
            raise ValueError("a command begins with the name of a program")
        words = " ".join(_word(os.fsencode(item)) for item in argv)
        command = f"exec /bin/sh -c '{_SCRIPT}' hostler {self.number} {words}"
        if len(command) > MOST_COMMAND_BYTES:
            raise ValueError(f"the command has {len(command)} bytes; {MOST_COMMAND_BYTES} are the most")
        return command

    def has_begun(self, heard: Heard) -> bool:
        return self._begin in heard.stdout

    def start(self, said: bytearray) -> int:
        """Where the command's own words begin; its whole length before it has begun."""
        place = said.find(self._begin)
        return len(said) if place < 0 else place + len(self._begin)

    def is_whole(self, heard: Heard) -> bool:
        return bool(self._end(heard.stdout) and self._end(heard.stderr))

    def answer(self, heard: Heard) -> tuple[int, bytes, bytes] | None:
        """Exit status, stdout and stderr of the command itself; None when the answer is not whole."""
        ends = self._end(heard.stdout), self._end(heard.stderr)
        if ends[0] is None or ends[1] is None:
            return None
        out, err = (
            bytes(said[self.start(said) : end.start()])
            for said, end in zip((heard.stdout, heard.stderr), ends, strict=True)
            if end is not None
        )
        return int(ends[0][1]), out, err

    @property
    def _begin(self) -> bytes:
        return f"\n{self.number} begin\n".encode()

    def _end(self, said: bytearray) -> re.Match[bytes] | None:
        # it is the last thing we wait for, so it is near the end of what was said
        start = max(0, len(said) - 4 * 65536)
        return re.compile(rb"\n%s end ([0-9]+)\n" % self.number.encode()).search(said, start)


def _word(item: bytes) -> str:
    if b"\0" in item:
        raise ValueError("an argument holds a NUL character")
    if _PLAIN.fullmatch(item):
        return f"'={item.decode()}'"
    return "'%" + "".join(chr(byte) if _PLAIN.fullmatch(bytes([byte])) else f"\\0{byte:03o}" for byte in item) + "'"
