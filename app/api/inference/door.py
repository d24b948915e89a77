"""The inside door: HTTP over the gateway's Unix socket to a ready replica of a route.

Balancing, retries, queues and failover stand in the gateway alone. Here a request is sent and its answer read, within
bounds of size and time, and given up as soon as the caller has gone: the gateway then cancels it at the replica.
"""

from __future__ import annotations

import http.client
import io
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.api.inference.caller import Caller
from app.domain.routing import hashed
from app.errors import GatewayDown, HostlerError, ReplicaBadAnswer, ReplicaTooSlow

CONNECT_S = 5.0
#: Longest silence, before the first byte and between two. The gateway's own limits are shorter: this is for one that
#: hangs.
SILENCE_S = 3700.0
#: The most tokens there may be with their ids, and to spare.
LONGEST_ANSWER = 32 * 1024 * 1024
LONGEST_EVENT = 1024 * 1024
LONGEST_PROBLEM = 64 * 1024


class AnswerBroke(ReplicaBadAnswer):
    """The replica's answer broke off before its end. Try again; see `hostler replica list` and its logs."""


#: A header that names what is addressed, and its value.
Address = tuple[str, str]


def route(name: str) -> Address:
    """The replicas that serve the model ``name``: hashed as the gateway hashes, so that any name can be sent."""
    return "X-Hostler-Route", hashed(name)


@dataclass(frozen=True)
class Door:
    """Where the gateway listens for this stack's own processes."""

    path: Path

    @contextmanager
    def post(
        self, address: Address, path: str, body: Any, headers: Mapping[str, str], caller: Caller
    ) -> Iterator[Answer]:
        """Send JSON and hand over the answer; the connection ends with the context.

        Raises CallerLeft, GatewayDown, ReplicaTooSlow; reading the answer raises CallerLeft, ReplicaBadAnswer,
        ReplicaTooSlow.
        """
        content = json.dumps(body, separators=(",", ":")).encode()
        with self._sent("POST", address, path, content, {**headers, "Content-Type": "application/json"}, caller) as got:
            yield got

    @contextmanager
    def get(self, address: Address, path: str, headers: Mapping[str, str], caller: Caller) -> Iterator[Answer]:
        """Ask for ``path``; raises as ``post`` does."""
        with self._sent("GET", address, path, None, headers, caller) as got:
            yield got

    @contextmanager
    def ask(
        self, method: str, address: Address, path: str, body: Any, headers: Mapping[str, str], caller: Caller
    ) -> Iterator[Answer]:
        """Send JSON by any method, as bytes or to be made; nothing where ``body`` is None. Raises as ``post`` does."""
        content = body if body is None or isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
        named = {} if content is None else {"Content-Type": "application/json"}
        with self._sent(method, address, path, content, {**headers, **named}, caller) as got:
            yield got

    @contextmanager
    def _sent(
        self,
        method: str,
        address: Address,
        path: str,
        content: bytes | None,
        headers: Mapping[str, str],
        caller: Caller,
    ) -> Iterator[Answer]:
        connection = _Connection(self.path, caller)
        try:
            with _told(GatewayDown):
                connection.request(method, path, content, {**headers, address[0]: address[1], "Connection": "close"})
                answer = Answer(connection.getresponse())
            yield answer
        finally:
            connection.hang_up()


class Answer:
    """What came back: its status and headers at once, its body as it comes."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response
        self.status = response.status
        self.replica_id = response.getheader("X-Hostler-Replica", "")
        self.retry_after = response.getheader("Retry-After", "")
        #: the gateway answers because no replica did
        self.failed = response.getheader("X-Hostler-Failed") is not None

    def json(self) -> Any:
        """The whole body."""
        try:
            return json.loads(self.body())
        except (ValueError, RecursionError) as error:
            raise ReplicaBadAnswer("The replica's answer is not JSON. See `hostler replica logs`.") from error

    def body(self, longest: int = LONGEST_ANSWER) -> bytes:
        """The whole body, of at most ``longest`` bytes."""
        with _told(AnswerBroke):
            raw = self._response.read(longest + 1)
        if self._response.length and len(raw) <= longest:
            # http.client does not mind that what was announced never came
            raise AnswerBroke
        if len(raw) > longest:
            raise ReplicaBadAnswer(f"The replica's answer is larger than {longest} bytes. Ask for less.")
        return raw

    def refusal(self) -> Mapping[str, Any]:
        """The body of an error as far as it is a JSON object; empty when it is none."""
        with _told(ReplicaBadAnswer):
            raw = self._response.read(LONGEST_PROBLEM)
        try:
            found = json.loads(raw)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, Mapping) else {}

    def events(self) -> Iterator[str]:
        """The data of each server-sent event, as soon as it is whole."""
        data: list[str] = []
        size = 0
        while True:
            with _told(AnswerBroke):
                line = self._response.readline(LONGEST_EVENT + 1)
            size += len(line)
            if size > LONGEST_EVENT:
                raise ReplicaBadAnswer(f"An event of the replica's stream is larger than {LONGEST_EVENT} bytes.")
            if line and not line.endswith(b"\n"):
                # http.client takes what broke off between two chunks for the end
                raise AnswerBroke
            if not line.strip():
                if data:
                    yield "\n".join(data)
                data, size = [], 0
                if not line:
                    return
            elif line.startswith(b"data:"):
                # no character is split here: the line is whole before its bytes become text
                data.append(line[5:].decode("utf-8", "replace").removeprefix(" ").rstrip("\r\n"))


class _Connection(http.client.HTTPConnection):
    """``http.client`` over a Unix socket, with the caller watched wherever it waits."""

    def __init__(self, path: Path, caller: Caller) -> None:
        super().__init__("hostler")
        self._path, self._caller = path, caller
        self._wire: socket.socket | None = None

    def connect(self) -> None:
        wire = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            wire.settimeout(CONNECT_S)
            wire.connect(str(self._path))
            wire.setblocking(False)
        except OSError:
            wire.close()
            raise
        self._wire = wire
        self.sock = _Wire(wire, self._caller)

    def hang_up(self) -> None:
        """End it, read or not: the gateway learns at once that nobody waits."""
        self.close()
        if self._wire is not None:
            self._wire.close()


class _Wire:
    """As much of a socket as ``http.client`` uses."""

    def __init__(self, wire: socket.socket, caller: Caller) -> None:
        self._wire, self._caller = wire, caller

    def sendall(self, data: bytes) -> None:
        """Send it all, or as much as is read before the answer comes: a full queue is told without reading on."""
        left = memoryview(data)
        while left:
            readable, writable = self._caller.wait(self._wire, SILENCE_S, to_write=True)
            if readable:
                return
            if not writable:
                raise TimeoutError
            try:
                left = left[self._wire.send(left) :]
            except BlockingIOError:
                continue
            except (BrokenPipeError, ConnectionResetError):
                # refused and closed in this very moment: what it said is there to be read, and if nothing, so it is
                # told there
                return

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reading(self._wire, self._caller), 65536)

    def close(self) -> None:
        """``http.client`` has no more use for it; who reads the answer still has."""


class _Reading(io.RawIOBase):
    def __init__(self, wire: socket.socket, caller: Caller) -> None:
        self._wire, self._caller = wire, caller

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        while True:
            if not self._caller.wait(self._wire, SILENCE_S)[0]:
                raise TimeoutError
            with suppress(BlockingIOError):
                return self._wire.recv_into(buffer)


@contextmanager
def _told(broken: type[HostlerError]) -> Iterator[None]:
    """What happens to the connection as what the API's caller is told; ``broken``: it ended before its time."""
    try:
        yield
    except TimeoutError as error:
        raise ReplicaTooSlow() from error
    except (http.client.HTTPException, OSError) as error:
        raise broken() from error
