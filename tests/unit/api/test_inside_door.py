"""The inside door to a gateway that refuses and closes while the request is still being sent."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from app.api.inference.caller import Caller
from app.api.inference.door import Door
from app.errors import GatewayDown

REFUSED = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


class LateCaller(Caller):
    """Sees that it can send; by the time it does, the other side has answered and gone."""

    def __init__(self, gone: threading.Thread) -> None:
        super().__init__()
        self._gone = gone

    def wait(self, wire: socket.socket, timeout_s: float, *, to_write: bool = False) -> tuple[bool, bool]:
        if to_write:
            self._gone.join(10)
            return False, True
        return super().wait(wire, timeout_s)


def _closing(path: Path, answer: bytes) -> threading.Thread:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        with listener, listener.accept()[0] as client:
            client.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_what_was_said_before_it_closed_is_read(tmp_path: Path) -> None:
    path = tmp_path / "door.sock"
    caller = LateCaller(_closing(path, REFUSED))
    with Door(path).post(("X-Hostler-Route", "A"), "/v1/completions", {"prompt": "a"}, {}, caller) as answer:
        assert (answer.status, answer.refusal()) == (429, {})


def test_who_closes_without_a_word_is_down(tmp_path: Path) -> None:
    path = tmp_path / "door.sock"
    caller = LateCaller(_closing(path, b""))
    with pytest.raises(GatewayDown), Door(path).post(("X-Hostler-Route", "A"), "/x", {}, {}, caller):
        pass
