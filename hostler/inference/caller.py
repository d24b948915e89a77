"""Carry inferences out: the two callers, a blocking one and one for asyncio. The rules stand elsewhere."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import httpx2

from hostler import __version__
from hostler.errors import InferenceError, InferenceTimedOut, MissingExtra, ServerFailed
from hostler.inference import http_v2
from hostler.inference.discovery import Found
from hostler.inference.endpoint import CONNECT_TIMEOUT_S, HTTP, Endpoint, async_protocol_of, protocol_of
from hostler.wire import Ask, Json

#: The servers are not Hostler's: they are never sent its key.
_HEADERS = {"User-Agent": f"hostler/{__version__}", "Accept": "application/json"}
_LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=20)


class Caller:
    """Asks servers, and keeps the connections to them."""

    def __init__(self) -> None:
        self._http: dict[bool, httpx2.Client] = {}

    def infer(self, ask: Ask) -> Json:
        """The outputs. Raises an InferenceError, BadInput (values that HTTP cannot carry), MissingExtra."""
        found: Found = ask.found
        if not found.endpoint.protocol:
            found.endpoint = replace(found.endpoint, protocol=protocol_of(found.endpoint))
        if found.endpoint.protocol == HTTP:
            return self._over_http(ask, found.endpoint)
        grpc_v2 = _grpc_v2()
        if found.lane is None:
            found.lane = grpc_v2.channel(found.endpoint)
        arguments = grpc_v2.arguments(ask.question, ask.timeout_s)
        try:
            result = found.lane.infer(**arguments)
        except grpc_v2.InferenceServerException as error:
            raise grpc_v2.failure(error, ask.timeout_s) from error
        outputs: Json = grpc_v2.outputs_of(result)
        return outputs

    def close(self, found: Found | None) -> None:
        """Close all connections, that to ``found`` too."""
        if found is not None and found.lane is not None:
            found.lane.close()
        for client in self._http.values():
            client.close()

    def _over_http(self, ask: Ask, endpoint: Endpoint) -> Json:
        client = self._http.get(endpoint.loopback)
        if client is None:
            client = self._http.setdefault(endpoint.loopback, httpx2.Client(**_http_options(endpoint)))
        try:
            response = client.post(**_http_arguments(ask, endpoint))
        except httpx2.RequestError as error:
            raise _http_failure(error, ask.timeout_s) from error
        return http_v2.outputs_of(response.status_code, response.content)


class AsyncCaller:
    """The same for asyncio."""

    def __init__(self) -> None:
        self._http: dict[bool, httpx2.AsyncClient] = {}

    async def infer(self, ask: Ask) -> Json:
        """The outputs. Raises an InferenceError, BadInput (values that HTTP cannot carry), MissingExtra."""
        found: Found = ask.found
        if not found.endpoint.protocol:
            found.endpoint = replace(found.endpoint, protocol=await async_protocol_of(found.endpoint))
        if found.endpoint.protocol == HTTP:
            return await self._over_http(ask, found.endpoint)
        grpc_v2 = _grpc_v2()
        if found.lane is None:
            found.lane = grpc_v2.async_channel(found.endpoint)
        arguments = grpc_v2.arguments(ask.question, ask.timeout_s)
        try:
            result = await found.lane.infer(**arguments)
        except grpc_v2.InferenceServerException as error:
            raise grpc_v2.failure(error, ask.timeout_s) from error
        outputs: Json = grpc_v2.outputs_of(result)
        return outputs

    async def close(self, found: Found | None) -> None:
        """Close all connections, that to ``found`` too."""
        if found is not None and found.lane is not None:
            await found.lane.close()
        for client in self._http.values():
            await client.aclose()

    async def _over_http(self, ask: Ask, endpoint: Endpoint) -> Json:
        client = self._http.get(endpoint.loopback)
        if client is None:
            client = self._http.setdefault(endpoint.loopback, httpx2.AsyncClient(**_http_options(endpoint)))
        try:
            response = await client.post(**_http_arguments(ask, endpoint))
        except httpx2.RequestError as error:
            raise _http_failure(error, ask.timeout_s) from error
        return http_v2.outputs_of(response.status_code, response.content)


def _grpc_v2() -> ModuleType:
    try:
        from hostler.inference import grpc_v2
    except (ImportError, RuntimeError) as error:
        # tritonclient without its own extra says RuntimeError
        raise MissingExtra(
            f"the server speaks gRPC, for which a part of Hostler is not installed ({error})",
            hint="pip install 'hostler[grpc]'",
        ) from error
    return grpc_v2


def _http_options(endpoint: Endpoint) -> dict[str, Any]:
    # a proxy named in the environment must not see what goes to this very host
    return {"headers": _HEADERS, "limits": _LIMITS, "trust_env": not endpoint.loopback}


def _http_arguments(ask: Ask, endpoint: Endpoint) -> dict[str, Any]:
    return {
        "url": http_v2.url_of(endpoint, ask.question),
        "json": http_v2.body_of(ask.question),
        "timeout": httpx2.Timeout(ask.timeout_s, connect=min(CONNECT_TIMEOUT_S, ask.timeout_s)),
    }


def _http_failure(error: httpx2.RequestError, timeout_s: float) -> InferenceError:
    sent = not isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout))
    if sent and isinstance(error, httpx2.TimeoutException):
        return InferenceTimedOut(f"no answer after {timeout_s:g} s", status="unreachable")
    return ServerFailed(str(error) or "the connection broke off", status="unreachable", sent=sent)
