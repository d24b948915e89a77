"""One question to the hub, bounded: until when, how much is read, and to whom it goes.

``huggingface_hub`` tries again, follows links and waits as it sees fit, and its timeouts hold from one byte to the
next. What is put around its HTTP client here ends all of that: it speaks to one origin only, counts what it reads, and
the sockets of a question are known, so that whoever gives it up can end it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import httpx2

#: Between two bytes, and until a connection stands. The question's own end comes first, most often.
SILENCE_S = 5.0
#: What all answers to one question may hold: a hundred models with their chat templates are two.
LONGEST_BYTES = 8 * 1024 * 1024
_CONNECTED = (".connect_tcp.complete", ".start_tls.complete")


class HubTrouble(Exception):
    """The hub cannot be asked now, in words for people."""


class HubNonsense(HubTrouble):
    """The hub answered with what cannot be used, in words for people."""


@dataclass
class Call:
    """``origin`` is (scheme, host, port); ``ends_at`` is of the monotonic clock."""

    origin: tuple[str, str, int | None]
    ends_at: float
    left_bytes: int = LONGEST_BYTES
    _sockets: list[socket.socket] = field(default_factory=list)
    _is_over: bool = False

    def left_s(self) -> float:
        return max(0.0, self.ends_at - time.monotonic())

    def hang_up(self) -> None:
        """End it from outside: whoever reads or writes on its sockets is woken."""
        self._is_over = True
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def begin(self, request: httpx2.Request) -> None:
        """Before each request: the first, and those to which it was sent on."""
        if _origin(request.url) != self.origin:
            raise HubNonsense(f"it sends us on to {request.url.scheme}://{request.url.host}, which is not the hub")
        silence_s = min(SILENCE_S, self.left_s())
        if self._is_over or silence_s <= 0:
            raise HubTrouble("it took too long")
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), silence_s)
        request.extensions["trace"] = self._watch

    def take(self, size: int) -> None:
        """Count what was read."""
        self.left_bytes -= size
        if self.left_bytes < 0:
            raise HubNonsense(f"its answer is larger than {LONGEST_BYTES} bytes")
        if self._is_over or self.left_s() <= 0:
            raise HubTrouble("its answer took too long")

    def _watch(self, event: str, info: Mapping[str, Any]) -> None:
        if not event.endswith(_CONNECTED):
            return
        found = info["return_value"].get_extra_info("socket")
        self._sockets.append(found)
        if self._is_over:
            self.hang_up()


#: The question that the present thread asks.
current: ContextVar[Call] = ContextVar("hub_call")


class _Counted(httpx2.SyncByteStream):
    def __init__(self, stream: httpx2.SyncByteStream, call: Call) -> None:
        self._stream, self._call = stream, call

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            self._call.take(len(chunk))
            yield chunk

    def close(self) -> None:
        self._stream.close()


class Client(httpx2.Client):
    """What ``huggingface_hub`` sends its requests with; proxies and authorities are those of the environment."""

    def __init__(self) -> None:
        super().__init__(
            follow_redirects=True,
            max_redirects=5,
            # a connection belongs to one question, which may be ended with it
            limits=httpx2.Limits(max_keepalive_connections=0),
            event_hooks={"request": [_begin], "response": [_bound]},
        )

    def send(self, *args: Any, **kwargs: Any) -> httpx2.Response:
        # under its own names ``huggingface_hub`` would wait, and try again
        try:
            return super().send(*args, **kwargs)
        except httpx2.TimeoutException as error:
            raise HubTrouble("it took too long") from error
        except httpx2.TransportError as error:
            raise HubTrouble(f"it cannot be reached ({type(error).__name__})") from error
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            raise HubNonsense(f"its answer cannot be read ({type(error).__name__})") from error


def _begin(request: httpx2.Request) -> None:
    current.get().begin(request)


def _bound(response: httpx2.Response) -> None:
    if response.status_code == 429:
        raise HubTrouble("it says that too much was asked of it (429)")
    if response.status_code >= 500:
        raise HubTrouble(f"it answered {response.status_code}")
    if response.headers.get("content-encoding", "identity") != "identity":
        # a small answer could become any size
        raise HubNonsense("its answer is compressed, which was not asked for")
    assert isinstance(response.stream, httpx2.SyncByteStream)
    response.stream = _Counted(response.stream, current.get())


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def origin_of(endpoint: str) -> tuple[str, str, int | None]:
    """The origin of a base URL."""
    return _origin(httpx2.URL(endpoint))
