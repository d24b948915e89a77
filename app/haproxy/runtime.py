"""The runtime socket of an HAProxy (``stats socket ... level admin``): commands in, words out."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

#: What an interactive session shows when it waits for the next command.
_PROMPT = b"\n> "
#: Longest answer that is read: 10,000 servers show about 4 MB.
_LONGEST = 256 * 1024 * 1024


class HaproxyAway(Exception):
    """HAProxy does not answer on its socket. `hostler status` shows whether it runs."""


class Session:
    """One interactive session. Commands are carried out in their order; each answer ends before the next begins."""

    def __init__(self, path: Path, timeout_s: float = 5.0) -> None:
        """``timeout_s`` is for each whole answer. Raises HaproxyAway."""
        self._timeout_s = timeout_s
        self._rest = b""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(str(path))
            self._socket.sendall(b"prompt\n")
            self._until_prompt()
        except (OSError, HaproxyAway) as error:
            self._socket.close()
            raise HaproxyAway(f"{path}: {error}") from error

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, command: str, payload: str = "") -> str:
        """The answer without blank lines around it. ``payload`` are lines that the command takes, none of them empty.

        Raises HaproxyAway, ValueError for a command of several lines.
        """
        if "\n" in command or ";" in command or "\n\n" in payload:
            raise ValueError(f"not one command: {command!r}")
        told = f"{command} <<\n{payload.strip()}\n\n" if payload else f"{command}\n"
        try:
            self._socket.sendall(told.encode())
            answer = self._until_prompt().decode(errors="replace").strip("\n")
            # a session that shows prompts shows one for each line of the payload
            return re.sub(r"^(\+ )+", "", answer) if payload else answer
        except OSError as error:
            raise HaproxyAway(str(error)) from error

    def ask_all(self, commands: Iterable[str]) -> list[str]:
        """The answer to each."""
        return [self.ask(command) for command in commands]

    def close(self) -> None:
        self._socket.close()

    def _until_prompt(self) -> bytes:
        deadline = time.monotonic() + self._timeout_s
        parts, tail, size = [self._rest], self._rest, len(self._rest)
        while not tail.endswith(_PROMPT):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise HaproxyAway("no whole answer in time")
            self._socket.settimeout(left_s)
            more = self._socket.recv(262144)
            if not more:
                raise HaproxyAway("it closed the session")
            parts.append(more)
            size += len(more)
            if size > _LONGEST:
                raise HaproxyAway("the answer does not end")
            tail = (tail + more)[-len(_PROMPT) :]
        self._rest = b""
        return b"".join(parts)[: -len(_PROMPT)]
