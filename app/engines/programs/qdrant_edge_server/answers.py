"""Which request is answered by what: Qdrant's routes, its envelope ``{"result", "status", "time"}``, its errors."""

# ruff: noqa: T201  (what it prints is the attempt's log)
from __future__ import annotations

import hmac
import json
import sys
import time
import traceback
from urllib.parse import unquote

from .counting import Count
from .reading import Fields, read_id, read_json, read_list
from .refusals import Refused, malformed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ..mock_server.serving import Request
    from .store import Store

#: Qdrant's version whose API this is a part of: clients compare it with their own.
VERSION = "1.20.0"
NAME = "qdrant-edge"
_JSON, _TEXT = "application/json", "text/plain; charset=utf-8"
#: Asked by who has no key: whether it is there.
_OPEN = {
    "/": "",
    "/healthz": "healthz check passed",
    "/readyz": "all shards are ready",
    "/livez": "livez check passed",
}
_UNAUTHORIZED = (b"Must provide an API key or an Authorization bearer token", b"Invalid API key or JWT")
_PHRASES = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 405: "Method Not Allowed"}
_PHRASES |= {409: "Conflict", 422: "Unprocessable Entity", 500: "Internal Server Error"}


class Answers:
    """Whole answers, one after the other: the engine holds the interpreter's lock, so threads win nothing."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key.encode("latin-1", "replace")
        self._count = Count()

    def answer(self, request: Request) -> Iterator[bytes]:
        started = time.perf_counter()
        path = request.path
        endpoint = path if path in (*_OPEN, "/metrics") else ""
        try:
            if request.method == "GET" and path in _OPEN:
                status, kind, body = 200, _TEXT, _OPEN[path].encode()
                if path == "/":
                    about = {"title": "qdrant - vector search engine", "version": VERSION, "engine": NAME}
                    kind, body = _JSON, json.dumps(about).encode()
            elif not self._allowed(request):
                status, kind, body = 401, _TEXT, _UNAUTHORIZED[bool(_sent_key(request))]
            elif path == "/metrics" and request.method == "GET":
                status, kind = 200, _TEXT
                body = self._count.text(self._store, NAME, VERSION).encode()
            else:
                endpoint, handle, words = _found(request)
                result = handle(self._store, words, request.body)
                status, kind, body = 200, _JSON, _envelope(result, "ok", started)
        except Refused as refused:
            status, kind = refused.status, _JSON
            body = _envelope(None, {"error": refused.message}, started)
            if status >= 500:
                print(f"qdrant-edge: {request.method} {path}: {refused.message}", file=sys.stderr, flush=True)
        except BaseException as error:
            # a panic of the engine is one, and ends this request alone
            if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
                raise
            traceback.print_exc()
            status, kind = 500, _JSON
            body = _envelope(None, {"error": f"Service internal error: {type(error).__name__}"}, started)
        # unknown paths are as many as somebody likes to invent
        self._count.add(request.method if endpoint else "", endpoint, status, time.perf_counter() - started)
        head = f"HTTP/1.1 {status} {_PHRASES[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        yield head.encode() + (b"" if request.method == "HEAD" else body)

    def _allowed(self, request: Request) -> bool:
        return not self._key or hmac.compare_digest(_sent_key(request).encode("latin-1", "replace"), self._key)


def _found(request: Request) -> tuple[str, Any, list[str]]:
    """(the route, what answers it, the words that stand in its places)."""
    words = [_unquoted(word) for word in request.path.strip("/").split("/")]
    for method, pattern, handle in _ROUTES:
        if method == request.method and _fits(pattern, words):
            taken = [word for word, part in zip(words, pattern, strict=True) if part.startswith("{")]
            return "/" + "/".join(pattern), handle, taken
    if any(_fits(pattern, words) for _, pattern, _ in _ROUTES):
        raise Refused(405, f"qdrant-edge does not take {request.method} here")
    raise Refused(404, f"qdrant-edge has no route {request.method} {request.path}; the engine qdrant has all")


def _fits(pattern: list[str], words: list[str]) -> bool:
    return len(pattern) == len(words) and all(
        part.startswith("{") or part == word for word, part in zip(words, pattern, strict=True)
    )


def _unquoted(word: str) -> str:
    try:
        return unquote(word, errors="strict")
    except UnicodeDecodeError:
        raise Refused(400, "Deserialize error in path parameters: no UTF-8") from None


def _sent_key(request: Request) -> str:
    """``api-key`` comes before the bearer token, as with Qdrant."""
    if "api-key" in request.headers:
        return str(request.headers["api-key"])
    return str(request.headers.get("authorization", "")).removeprefix("Bearer ")


def _envelope(result: Any, status: Any, started: float) -> bytes:
    body = {} if isinstance(status, dict) else {"result": result}
    return json.dumps(
        {**body, "status": status, "time": round(time.perf_counter() - started, 9)}, separators=(",", ":")
    ).encode()


def _search_batch(store: Store, name: str, body: dict[str, Any], *, query: bool) -> list[Any]:
    collection = store.get(name)
    fields = Fields(body)
    asked = read_list(fields.need("searches"), "searches")
    fields.end()
    if not all(isinstance(one, dict) for one in asked):
        raise malformed("searches: expected objects")
    return [collection.query(one) if query else collection.search(one) for one in asked]


def _point(word: str) -> int | str:
    try:
        return read_id(int(word) if word.isascii() and word.isdigit() and len(word) <= 20 else word)
    except Refused as refused:
        raise Refused(400, refused.message.replace("Format error in JSON body", "Can not recognize point id")) from None


_ROUTES: list[tuple[str, list[str], Any]] = [
    (method, path.strip("/").split("/"), handle)
    for method, path, handle in (
        ("GET", "/collections", lambda s, w, b: {"collections": [{"name": one} for one in s.names()]}),
        ("GET", "/collections/{name}", lambda s, w, b: s.get(w[0]).info()),
        ("PUT", "/collections/{name}", lambda s, w, b: s.create(w[0], read_json(b))),
        ("PATCH", "/collections/{name}", lambda s, w, b: s.update(w[0], read_json(b))),
        ("DELETE", "/collections/{name}", lambda s, w, b: s.delete(w[0])),
        ("GET", "/collections/{name}/exists", lambda s, w, b: {"exists": s.has(w[0])}),
        ("PUT", "/collections/{name}/index", lambda s, w, b: s.get(w[0]).create_index(read_json(b))),
        ("DELETE", "/collections/{name}/index/{field}", lambda s, w, b: s.get(w[0]).delete_index(w[1])),
        ("PUT", "/collections/{name}/points", lambda s, w, b: s.get(w[0]).upsert(read_json(b))),
        ("POST", "/collections/{name}/points", lambda s, w, b: s.get(w[0]).retrieve(read_json(b))),
        ("GET", "/collections/{name}/points/{id}", lambda s, w, b: s.get(w[0]).point(_point(w[1]))),
        ("POST", "/collections/{name}/points/delete", lambda s, w, b: s.get(w[0]).delete(read_json(b))),
        ("POST", "/collections/{name}/points/scroll", lambda s, w, b: s.get(w[0]).scroll(read_json(b))),
        ("POST", "/collections/{name}/points/count", lambda s, w, b: s.get(w[0]).count(read_json(b))),
        ("POST", "/collections/{name}/points/search", lambda s, w, b: s.get(w[0]).search(read_json(b))),
        (
            "POST",
            "/collections/{name}/points/search/batch",
            lambda s, w, b: _search_batch(s, w[0], read_json(b), query=False),
        ),
        ("POST", "/collections/{name}/points/query", lambda s, w, b: s.get(w[0]).query(read_json(b))),
        (
            "POST",
            "/collections/{name}/points/query/batch",
            lambda s, w, b: _search_batch(s, w[0], read_json(b), query=True),
        ),
        (
            "POST",
            "/collections/{name}/points/payload",
            lambda s, w, b: s.get(w[0]).set_payload(read_json(b)),
        ),
        (
            "PUT",
            "/collections/{name}/points/payload",
            lambda s, w, b: s.get(w[0]).overwrite_payload(read_json(b)),
        ),
        ("POST", "/collections/{name}/points/payload/delete", lambda s, w, b: s.get(w[0]).delete_payload(read_json(b))),
        ("POST", "/collections/{name}/points/payload/clear", lambda s, w, b: s.get(w[0]).clear_payload(read_json(b))),
    )
]
