"""The few calls that `up` and `down` make to the stack's own API."""

from __future__ import annotations

import http.client
import json
import ssl
from typing import Any
from urllib.parse import urlsplit

from app.stack.errors import StackError


class ApiSilent(StackError):
    """The stack's API does not answer."""


class Api:
    """One stack's API at ``url``. One connection per call: calls are few and the server may be ending."""

    def __init__(self, url: str, *, certificate: str = "", key: str = "") -> None:
        self._parts = urlsplit(url)
        self._key = key
        self._certificate = certificate

    def health(self, timeout_s: float = 2) -> tuple[int, dict[str, Any]]:
        """Status and body of ``GET /health``; status 0 when nothing answers."""
        try:
            return self._call("GET", "/health", timeout_s)
        except ApiSilent:
            return 0, {}

    def replicas(self, status: str, timeout_s: float = 10) -> list[dict[str, Any]]:
        """Every replica in that state. Raises ApiSilent."""
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            code, body = self._call("GET", f"/api/v1/replicas?limit=200&status={status}{cursor}", timeout_s)
            if code != 200:
                raise ApiSilent(f"the API answered {code} to a list of replicas: {body.get('detail', '')}")
            found += body["replicas"]
            if not body.get("next_cursor"):
                return found
            cursor = f"&cursor={body['next_cursor']}"

    def replica(self, replica_id: str, timeout_s: float = 10) -> dict[str, Any] | None:
        """One replica, None when there is no record of it. Raises ApiSilent."""
        code, body = self._call("GET", f"/api/v1/replicas/{replica_id}", timeout_s)
        if code not in (200, 404):
            raise ApiSilent(f"the API answered {code} to a question about {replica_id}: {body.get('detail', '')}")
        return body if code == 200 else None

    def has_pool_of(self, backend: str, timeout_s: float = 10) -> bool:
        """Whether replicas of some pool run by that backend. Raises ApiSilent."""
        code, body = self._call("GET", f"/api/v1/pools?limit=1&backend={backend}", timeout_s)
        if code != 200:
            raise ApiSilent(f"the API answered {code} to a list of pools: {body.get('detail', '')}")
        return bool(body["pools"])

    def recipe_problems(self, timeout_s: float = 5) -> list[str]:
        """What is wrong with recipes' files and their folder, a line each. Raises ApiSilent."""
        found: list[str] = []
        cursor = ""
        while True:
            code, body = self._call("GET", f"/api/v1/recipes?limit=1000{cursor}", timeout_s)
            if code != 200:
                raise ApiSilent(f"the API answered {code} to a list of recipes: {body.get('detail', '')}")
            found += [] if cursor else body["problems"]
            for one in body["recipes"]:
                served = "its last good version serves" if one["served"] else "not served"
                found += [f"{one['recipe']} ({served}): {problem}" for problem in one["problems"][:1]]
            if not body.get("next_cursor"):
                return found
            cursor = f"&cursor={body['next_cursor']}"

    def stop_replica(self, replica_id: str, grace_s: int, timeout_s: float = 10) -> str:
        """Ask for the stop; empty, or why it was refused."""
        body = {"grace_s": grace_s, "drain_s": grace_s}
        status, answer = self._call("POST", f"/api/v1/replicas/{replica_id}/stop", timeout_s, body)
        return "" if status in (200, 202, 404) else f"{status} {answer.get('detail', '')}"

    def ask(self, method: str, path: str, body: Any = None, timeout_s: float = 30) -> tuple[int, dict[str, Any]]:
        """Status and body of any request. Raises ApiSilent."""
        status, found = self._call(method, path, timeout_s, body)
        return status, found if isinstance(found, dict) else {}

    def _call(self, method: str, path: str, timeout_s: float, body: Any = None) -> tuple[int, Any]:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if self._key:
            headers["X-API-Key"] = self._key
        connection = self._connect(timeout_s)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            raw = response.read()
            return response.status, json.loads(raw) if raw else {}
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ApiSilent(f"the API does not answer: {error}") from error
        finally:
            connection.close()

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "127.0.0.1", self._parts.port
        if self._parts.scheme != "https":
            return http.client.HTTPConnection(host, port, timeout=timeout_s)
        # our own certificate is the trust: its names are those that other hosts use
        context = ssl.create_default_context(cafile=self._certificate or None)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
