"""Asks for the key on every route of vLLM but ``/health``. vLLM imports it (``--middleware``); nothing else does.

vLLM's own check stands in front of ``/v1`` only: it leaves ``/tokenize``, ``/invocations`` and more to whoever reaches
the port, which on a shared host is everybody.
"""

from __future__ import annotations

import hmac
import os

TYPE_CHECKING = False  # it must import in whatever Python vLLM runs on
if TYPE_CHECKING:
    from typing import Any

_DENIED = b'{"error":{"message":"Unauthorized","type":"authentication_error","param":null,"code":401}}'


class Guard:
    """An ASGI middleware."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self._expected = f"Bearer {os.environ['VLLM_API_KEY']}".encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan" or scope.get("path") == "/health" or self._may(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(_DENIED)).encode())]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": _DENIED})
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _may(self, scope: Any) -> bool:
        sent = [value for name, value in scope.get("headers") or () if name == b"authorization"]
        return len(sent) == 1 and hmac.compare_digest(sent[0], self._expected)
