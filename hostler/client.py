"""The two clients: a blocking one and one for asyncio. They only send; the rules are in ``wire`` and ``feed``."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

from hostler import __version__
from hostler.connection import Connection, find_connection
from hostler.errors import ApiError, BadInput, HostlerError, NoAnswer, Unreachable
from hostler.feed import Feed, Item
from hostler.generation import TokenStream
from hostler.inference.caller import AsyncCaller, Caller
from hostler.inference.discovery import Discovery
from hostler.verbs import Verbs
from hostler.wire import Ask, Call, Json, Pause, Reply, Steps, problem

CONNECT_TIMEOUT_S = 5.0
T = TypeVar("T")


class Client(Verbs[Json, str]):
    """A blocking client. Usable as a context manager.

    Without ``url`` and ``key`` (or a found ``connection``) it is led by HOSTLER_URL and HOSTLER_API_KEY, else by the
    state dir of this host's stack. ``timeout_s`` caps how long any single answer is waited for.

    >>> with Client() as hostler:
    ...     hostler.list_replicas(status="ready")["replicas"]

    ``api_server`` is another word for ``url``. With a ``capability`` it finds a registered server that has it, when one
    is first needed, and ``infer`` asks that server; ``protocol`` is ``grpc``, ``http``, or whatever the server speaks.

    >>> with Client(api_server="http://127.0.0.1:8080", capability={"type": "chat"}) as client:
    ...     client.infer("chat", {"prompt": ["Hello"]})
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        api_server: str | None = None,
        capability: Mapping[str, Any] | None = None,
        protocol: str | None = None,
        state_dir: str | Path | None = None,
        connection: Connection | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self._discovery = Discovery(capability, protocol)
        self.connection = connection or find_connection(_one_of(url, api_server), key, state_dir=state_dir)
        self._timeout_s = timeout_s
        self._caller = Caller()
        self._http = httpx2.Client(**_options(self.connection))

    def follow(self, feed: Feed) -> Iterator[Item]:
        """What ``feed`` tells, over broken connections, until it ends. Raises ApiError, Unreachable."""
        while not feed.is_over():
            broken: Unreachable | None = None
            refusal: ApiError | None = None
            try:
                with self._http.stream(**_arguments(feed.call, None)) as response:
                    if not _is_stream(response):
                        response.read()
                        refusal = _no_stream(response)
                    else:
                        feed.opened()
                        for event in httpx2.EventSource(response):
                            item = feed.take(event.event, event.data, event.id)
                            if item is not None:
                                yield item
                            if feed.is_over():
                                return
            except httpx2.RequestError as error:
                broken = _unreachable(error, self.connection)
            time.sleep(feed.broke(broken) if refusal is None else feed.refused(refusal))

    def stream_generate(self, prompt: str, *, model_id: str | None = None, **sampling: Any) -> Iterator[str]:
        """The text that ``generate`` would give, piece by piece as it is made. Leaving the loop ends the making.

        Raises ApiError, also in the middle; Unreachable when the stream breaks off.
        """
        stream = TokenStream(prompt, model_id=model_id, sampling=sampling)
        try:
            with self._http.stream(**_arguments(stream.call, self._timeout_s)) as response:
                if not _is_stream(response):
                    response.read()
                    raise _no_stream(response)
                for event in httpx2.EventSource(response):
                    piece = stream.take(event.data)
                    if stream.is_over:
                        return
                    yield piece
        except httpx2.RequestError as error:
            raise _unreachable(error, self.connection) from error
        raise _broke_off(self.connection)

    def close(self) -> None:
        """Close the connections."""
        self._discovery.closed = True
        self._caller.close(self._discovery.found)
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, steps: Steps[Json]) -> Json:
        return self._drive(steps)

    def _run_text(self, steps: Steps[str]) -> str:
        return self._drive(steps)

    def _drive(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                try:
                    reply = self._take(step)
                except HostlerError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(reply)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _take(self, step: Call | Pause | Ask) -> Reply:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return _NOTHING
        if isinstance(step, Ask):
            step.outputs = self._caller.infer(step)
            return _NOTHING
        try:
            return _reply(self._http.request(**_arguments(step, self._timeout_s)))
        except httpx2.RequestError as error:
            raise _unreachable(error, self.connection) from error


class AsyncClient(Verbs[Awaitable[Json], Awaitable[str]]):
    """The same for asyncio. Usable as an async context manager."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        api_server: str | None = None,
        capability: Mapping[str, Any] | None = None,
        protocol: str | None = None,
        state_dir: str | Path | None = None,
        connection: Connection | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self._discovery = Discovery(capability, protocol)
        self.connection = connection or find_connection(_one_of(url, api_server), key, state_dir=state_dir)
        self._timeout_s = timeout_s
        self._caller = AsyncCaller()
        self._http = httpx2.AsyncClient(**_options(self.connection))

    async def follow(self, feed: Feed) -> AsyncIterator[Item]:
        """What ``feed`` tells, over broken connections, until it ends. Raises ApiError, Unreachable."""
        while not feed.is_over():
            broken: Unreachable | None = None
            refusal: ApiError | None = None
            try:
                async with self._http.stream(**_arguments(feed.call, None)) as response:
                    if not _is_stream(response):
                        await response.aread()
                        refusal = _no_stream(response)
                    else:
                        feed.opened()
                        async for event in httpx2.EventSource(response):
                            item = feed.take(event.event, event.data, event.id)
                            if item is not None:
                                yield item
                            if feed.is_over():
                                return
            except httpx2.RequestError as error:
                broken = _unreachable(error, self.connection)
            await asyncio.sleep(feed.broke(broken) if refusal is None else feed.refused(refusal))

    async def stream_generate(self, prompt: str, *, model_id: str | None = None, **sampling: Any) -> AsyncIterator[str]:
        """The text that ``generate`` would give, piece by piece as it is made. Leaving the loop ends the making.

        Raises ApiError, also in the middle; Unreachable when the stream breaks off.
        """
        stream = TokenStream(prompt, model_id=model_id, sampling=sampling)
        try:
            async with self._http.stream(**_arguments(stream.call, self._timeout_s)) as response:
                if not _is_stream(response):
                    await response.aread()
                    raise _no_stream(response)
                async for event in httpx2.EventSource(response):
                    piece = stream.take(event.data)
                    if stream.is_over:
                        return
                    yield piece
        except httpx2.RequestError as error:
            raise _unreachable(error, self.connection) from error
        raise _broke_off(self.connection)

    async def close(self) -> None:
        """Close the connections."""
        self._discovery.closed = True
        await self._caller.close(self._discovery.found)
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _run(self, steps: Steps[Json]) -> Awaitable[Json]:
        return self._drive(steps)

    def _run_text(self, steps: Steps[str]) -> Awaitable[str]:
        return self._drive(steps)

    async def _drive(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                try:
                    reply = await self._take(step)
                except HostlerError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(reply)
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def _take(self, step: Call | Pause | Ask) -> Reply:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return _NOTHING
        if isinstance(step, Ask):
            step.outputs = await self._caller.infer(step)
            return _NOTHING
        try:
            return _reply(await self._http.request(**_arguments(step, self._timeout_s)))
        except httpx2.RequestError as error:
            raise _unreachable(error, self.connection) from error


#: What a Pause is answered with.
_NOTHING = Reply(0, {})


def _one_of(url: str | None, api_server: str | None) -> str | None:
    if url and api_server and url != api_server:
        raise BadInput("url and api_server are the same thing; give one of them")
    return url or api_server


def _options(connection: Connection) -> dict[str, Any]:
    headers = {"User-Agent": f"hostler/{__version__}", "Accept": "application/json, text/plain;q=0.9"}
    if connection.key:
        headers["X-API-Key"] = connection.key
    # a proxy named in the environment must not see what goes to this very host
    options = {"base_url": connection.url, "headers": headers, "trust_env": not connection.loopback}
    if connection.loopback and connection.url.startswith("http:"):
        # no TLS, and no proxy with TLS: to read the world's authorities would take longer than to ask
        return options | {"verify": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)}
    return options | ({"verify": _trust(connection.certificate)} if connection.certificate else {})


def _trust(certificate: str) -> ssl.SSLContext:
    """The stack's own certificate and no other. Its names are those that other hosts use, not loopback."""
    try:
        context = ssl.create_default_context(cafile=certificate)
    except OSError as error:
        raise Unreachable(f"cannot read the certificate {certificate}: {error.strerror}", sent=False) from error
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _arguments(call: Call, longest_s: float | None) -> dict[str, Any]:
    read_s = call.read_timeout_s if longest_s is None else min(call.read_timeout_s, longest_s)
    return {
        "method": call.method,
        "url": call.path,
        "params": call.params() or None,
        "json": call.body,
        "headers": dict(call.headers),
        "timeout": httpx2.Timeout(read_s, connect=min(CONNECT_TIMEOUT_S, read_s)),
    }


def _reply(response: httpx2.Response) -> Reply:
    headers = {name.lower(): value for name, value in response.headers.items()}
    if 300 <= response.status_code < 400:
        raise ApiError(f"{response.url} redirects; is this Hostler's address?", status=response.status_code)
    return Reply(response.status_code, headers, response.content)


def _is_stream(response: httpx2.Response) -> bool:
    return response.status_code == 200 and response.headers.get("content-type", "").startswith("text/event-stream")


def _no_stream(response: httpx2.Response) -> ApiError:
    reply = _reply(response)
    if reply.status < 400:
        return ApiError(f"{response.url} is no stream of events; is this Hostler's address?", status=reply.status)
    return problem(reply)


def _broke_off(connection: Connection) -> Unreachable:
    return Unreachable(f"the stream of {connection.url} broke off before its end; what came so far is not whole")


def _unreachable(error: httpx2.RequestError, connection: Connection) -> Unreachable:
    if isinstance(error, httpx2.TimeoutException):
        return NoAnswer(f"{connection.url} did not answer in time")
    detail = str(error) or "the connection broke off"
    return Unreachable(f"cannot reach {connection.url}: {detail}", sent=not isinstance(error, httpx2.ConnectError))
