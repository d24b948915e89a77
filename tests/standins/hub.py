"""Stands in for the hub in tests: the two routes that Hostler asks, the hub's errors, and the faults of a bad one."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "hf_" + "t" * 34


def model(name: str, architecture: str | None, downloads: int = 1, **more: Any) -> dict[str, Any]:
    """A model as the hub describes it."""
    config = {"architectures": [architecture], "model_type": "m"} if architecture else {}
    return {
        "_id": "0" * 24,
        "id": name,
        "author": name.partition("/")[0],
        "config": config,
        "downloads": downloads,
        "likes": 3,
        "gated": False,
        "private": False,
        "disabled": False,
        "tags": ["transformers", "text-generation"],
        "pipeline_tag": "text-generation",
        "library_name": "transformers",
        "createdAt": "2024-09-16T11:55:40.000Z",
        "lastModified": "2025-01-12T02:10:10.000Z",
        "sha": "a" * 40,
        **more,
    }


QWEN = model(
    "Qwen/Qwen2.5-7B-Instruct",
    "Qwen2ForCausalLM",
    900,
    config={
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "tokenizer_config": {"chat_template": "{{ messages }}"},
    },
    safetensors={"parameters": {"BF16": 7_615_616_512}, "total": 7_615_616_512},
)
GPT2 = model("openai-community/gpt2", "GPT2LMHeadModel", 800, safetensors={"parameters": {"F32": 137}, "total": 137})
MODELS = [
    model("Qwen/Qwen2.5-0.5B-Instruct", "Qwen2ForCausalLM", 1000),
    QWEN,
    GPT2,
    model("BAAI/bge-small-en-v1.5", "BertModel", 700),
    model("someone/qwen-of-tomorrow", "Qwen9ForCausalLM", 5),
    model("someone/old-qwen", "QWenLMHeadModel", 4),
    model("someone/qwen-gguf", None, 3),
    model("meta/gated-qwen", None, 2, gated="manual"),
    model("secret/qwen", "Qwen2ForCausalLM", 1, private=True),
]
#: Old names, and where the hub sends those who use them.
MOVED = {"gpt2": GPT2["id"]}
#: The hub does not even describe these.
CLOSED = {"meta/closed"}


class Hub(ThreadingHTTPServer):
    """``fault`` is the name of what it does wrong from now on (methods ``fault_*`` below); empty: nothing."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.fault = ""
        #: (path with query, Authorization)
        self.asked: list[tuple[str, str]] = []
        self.over = Event()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def hub() -> Iterator[Hub]:
    """A hub that listens on loopback."""
    with Hub() as it:
        thread = Thread(target=it.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield it
        finally:
            it.over.set()
            it.shutdown()


class _Answer(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization", "")))
        with suppress(ConnectionError):
            if self.server.fault:
                getattr(self, f"fault_{self.server.fault}")()
                return
            url = urlsplit(self.path)
            name = url.path.removeprefix("/api/models").strip("/")
            if url.path.startswith("/api/models") and not name:
                self._search({key: values[-1] for key, values in parse_qs(url.query).items()})
            elif url.path.startswith("/api/models/"):
                self._model(name, url.query)
            else:
                self._say(404, {"error": "Not found"})

    def _search(self, query: dict[str, str]) -> None:
        visible = [one for one in MODELS if not one["private"] or self._knows_us()]
        found = [one for one in visible if query.get("search", "").lower() in one["id"].lower()]
        found.sort(key=lambda one: -one["downloads"])
        self._say(200, found[: int(query.get("limit", 1000))])

    def _model(self, name: str, query: str) -> None:
        if name in MOVED:
            self._say(307, {}, Location=f"/api/models/{MOVED[name]}?{query}")
        elif name in CLOSED:
            words = "Access to model meta/closed is restricted."
            self._say(403, {"error": words}, X_Error_Code="GatedRepo", X_Error_Message=words)
        else:
            found = next((one for one in MODELS if one["id"] == name), None)
            if found is not None and (not found["private"] or self._knows_us()):
                self._say(200, found)
            else:
                # so it answers those it does not know, whatever they ask for
                status = 404 if self._knows_us() else 401
                self._say(status, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")

    def _knows_us(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _say(self, status: int, body: Any, **headers: str) -> None:
        self._send(status, body if isinstance(body, bytes) else json.dumps(body).encode(), **headers)

    def _send(self, status: int, raw: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(raw)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(raw)

    def fault_hang(self) -> None:
        self.server.over.wait(60)

    def fault_drip(self) -> None:
        """A byte now and then, of a head that never ends."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        self._drip()

    def fault_drip_body(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n[")
        self._drip()

    def _drip(self) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end and not self.server.over.wait(0.2):
            self.wfile.write(b" ")
            self.wfile.flush()

    def fault_endless(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n[")
        while not self.server.over.is_set():
            self.wfile.write(b" " * 65536)

    def fault_bomb(self) -> None:
        self._send(200, gzip.compress(b"[" + b" " * 50_000_000), Content_Encoding="gzip")

    def fault_elsewhere(self) -> None:
        self._say(307, {}, Location=f"http://localhost:{self.server.server_port}/api/models/stolen")

    def fault_next_elsewhere(self) -> None:
        self._say(200, [], Link=f'<http://localhost:{self.server.server_port}/api/models/stolen>; rel="next"')

    def fault_round(self) -> None:
        self._say(307, {}, Location=self.path)

    def fault_strange_link(self) -> None:
        self._say(200, [], Link='<http://[>; rel="next"')

    def fault_broken(self) -> None:
        self._say(500, {"error": "boom"})

    def fault_busy(self) -> None:
        self._say(429, {"error": "slow down"}, Retry_After="86400", RateLimit='"api";r=0;t=86400')

    def fault_html(self) -> None:
        self._say(200, b"<html>a login page</html>")

    def fault_number(self) -> None:
        self._say(200, 5)

    def fault_other_object(self) -> None:
        self._say(200, {"message": "hello"})

    def fault_wrong_types(self) -> None:
        self._say(200, self._list({"id": "a/b", "config": 5, "tags": "x", "safetensors": [], "createdAt": 1}))

    def fault_wrong_name(self) -> None:
        self._say(200, self._list({"id": "../../etc/passwd"}))

    def fault_deep(self) -> None:
        self._say(200, b"[" * 200_000)

    def fault_refused_token(self) -> None:
        words = "Invalid credentials in Authorization header"
        self._say(401, {"error": words}, X_Error_Message=words)

    def fault_forbidden(self) -> None:
        self._say(403, {"error": "not you"})

    def fault_nowhere(self) -> None:
        self._say(404, {"error": "Not found"})

    def fault_teapot(self) -> None:
        self._say(418, {"error": "I am a teapot"})

    def _list(self, one: Any) -> Any:
        return one if urlsplit(self.path).path.count("/") > 2 else [one]
