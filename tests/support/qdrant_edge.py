"""Asking a store that runs, by Qdrant's REST API."""

from __future__ import annotations

import http.client
import json
from typing import Any

from tests.support.engines import HOST, KEY, Running

SIZE = 3
VECTOR = [1.0, 2.0, 3.0]
DOT = {"size": SIZE, "distance": "Dot"}


def ask(it: Running, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None) -> Any:
    """(status, what it says)"""
    connection = http.client.HTTPConnection(HOST, it.port, timeout=20)
    try:
        content = body if isinstance(body, bytes | None) else json.dumps(body)
        connection.request(method, path, content, headers if headers is not None else {"api-key": KEY})
        answer = connection.getresponse()
        data = answer.read().decode()
        return answer.status, json.loads(data) if answer.headers["Content-Type"] == "application/json" else data
    finally:
        connection.close()


def must(it: Running, method: str, path: str, body: Any = None) -> Any:
    status, said = ask(it, method, path, body)
    assert (status, said["status"]) == (200, "ok"), said
    return said["result"]


def make(it: Running, name: str, distance: str = "Dot", size: int = SIZE) -> str:
    must(it, "PUT", f"/collections/{name}", {"vectors": {"size": size, "distance": distance}})
    return f"/collections/{name}"
