"""Asks models through the door, as their users do, and tells the journal who answered in whose words."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from tests.faults.harness.asks import ALIAS, ESCAPED, LATE, PLAIN, TWICE
from tests.faults.harness.journal import Journal

#: A user who hears nothing for so long gives up.
PATIENCE_S = 12.0
#: More than the gateway's buffer holds.
_MUCH = "so it goes " * 4000
TOKENS = 6
_TOLD = ("content-type", "retry-after", "x-hostler-replica")


def ask(url: str, journal: Journal, act: Mapping[str, Any], named: str | None, key: str, **more: Any) -> dict[str, Any]:
    """One request and what came of it, as ``door`` in the journal; the line. ``status`` 0: no answer.

    ``named`` is the replica or the service that is asked for by its id.
    """
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    path = "/v1/chat/completions"
    if act["by"] == "replica":
        headers["X-Hostler-Replica"] = str(named)
    elif act["by"] == "service":
        headers["X-Hostler-Service"] = str(named)
    elif act["by"] == "proxy":
        path = f"/api/v1/replicas/{named}/proxy{path}"
    line = {
        **{name: act[name] for name in ("by", "model", "spelled", "key", "stream")},
        "replica": named if act["by"] in ("replica", "proxy") else None,
        "service": named if act["by"] == "service" else None,
        **more,
        **_send(url, path, headers, body_of(act)),
    }
    journal.write("door", **line)
    return line


def body_of(act: Mapping[str, Any]) -> str:
    """The body, spelled as the act says. Of two models the first is one that nobody serves."""
    name = ALIAS if act["by"] == "alias" else act["model"]
    message = {"role": "user", "content": _MUCH if act["spelled"] == LATE else "are you ready?"}
    body: dict[str, Any] = {"max_tokens": TOKENS, "messages": [message], "stream": act["stream"]}
    if act["spelled"] == PLAIN:
        return json.dumps({"model": name, **body})
    rest = json.dumps(body)[1:-1]
    if act["spelled"] == LATE:
        return f'{{{rest}, "model": {json.dumps(name)}}}'
    if act["spelled"] == ESCAPED:
        return f'{{{rest}, "mod\\u0065l": {json.dumps(name)}}}'
    assert act["spelled"] == TWICE
    return f'{{"model": "nobody", {rest}, "model": {json.dumps(name)}}}'


def look(url: str, key: str, path: str) -> int:
    """The status of a GET; 0 without an answer."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE_S)
    try:
        connection.request("GET", path, headers={"X-API-Key": key})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def _send(url: str, path: str, headers: Mapping[str, str], body: str) -> dict[str, Any]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE_S)
    found: dict[str, Any] = {"status": 0}
    raw = b""
    try:
        connection.request("POST", path, body, dict(headers))
        answer = connection.getresponse()
        found["status"] = answer.status
        found["headers"] = {name: answer.headers[name] for name in _TOLD if answer.headers.get(name)}
        while piece := answer.read1(65536):
            raw += piece
    except (OSError, http.client.HTTPException) as error:
        # what was heard until then was said by somebody all the same
        found["lost"] = f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    return found | _said(raw)


def _said(raw: bytes) -> dict[str, Any]:
    """Whose words these are: models and engines, as they say themselves, and a problem's code."""
    if raw.startswith(b"data: "):
        events = [line[6:] for line in raw.decode(errors="replace").splitlines() if line.startswith("data: ")]
        bodies = [found for event in events if isinstance(found := _json(event), dict)]
        more = {"whole": bool(events) and events[-1] == "[DONE]"}
    else:
        found = _json(raw.decode(errors="replace"))
        bodies, more = [found] if isinstance(found, dict) else [], {}
    said = {
        "models": sorted({str(body["model"]) for body in bodies if "model" in body}),
        "engines": sorted({str(body["system_fingerprint"]) for body in bodies if "system_fingerprint" in body}),
    }
    code = next((body["code"] for body in bodies if isinstance(body.get("code"), str)), None)
    return {**said, **more, **({"code": code} if code else {})}


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
