"""What each route answers, and when it misbehaves."""

# ruff: noqa: T201  (what it prints is the attempt's log)
from __future__ import annotations

import hmac
import json
import os
import sys
import time

from . import text
from .knobs import Knobs
from .serving import Request

TYPE_CHECKING = False  # importing typing would take a third of the start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from .serving import Steps

    Body = dict[str, Any]
    Pieces = Iterator[str | float]


#: Named as llama.cpp names them, so that one reader of token counters serves both engines.
_METRICS = """\
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total {prompt_tokens}
# TYPE llamacpp:tokens_predicted_total counter
llamacpp:tokens_predicted_total {tokens}
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing {active}
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred {waiting}
# TYPE mock:requests_total counter
mock:requests_total {started}
# TYPE mock:requests_finished_total counter
mock:requests_finished_total {finished}
# TYPE mock:requests_cancelled_total counter
mock:requests_cancelled_total {cancelled}
"""
_PHRASES = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 405: "Method Not Allowed"}
#: Told, and not enforced.
MODEL_LENGTH = 32768
_WAIT_FOR_EVER = None
_SLOT_POLL_S = 0.005


class Answers:
    """Turns a request into a generator of bytes and waits; see serving."""

    def __init__(self, model: str, key: str, knobs: Knobs) -> None:
        self.model, self._key, self.knobs = model, key, knobs
        self._started_at = time.monotonic()
        self._last: object = None
        self.count = dict.fromkeys(
            ("prompt_tokens", "tokens", "active", "waiting", "started", "finished", "cancelled"), 0
        )
        self._dice = text.dice(knobs.seed)
        self._routes = self.routes()

    def routes(self) -> dict[str, tuple[str, Callable[[Request], Steps]]]:
        """Method and what answers, by path."""
        return {
            "/health": ("GET", self._health),
            "/v1/health": ("GET", self._health),
            "/v1/models": ("GET", self._models),
            "/metrics": ("GET", self._metrics),
            "/mock/state": ("GET", self._state),
            "/tokenize": ("POST", self._tokenize),
            "/v1/completions": ("POST", lambda request: self.work(request, self.completion)),
            "/v1/chat/completions": ("POST", lambda request: self.work(request, self.chat)),
            "/v1/embeddings": ("POST", lambda request: self.work(request, self.embeddings)),
        }

    def is_open(self, path: str) -> bool:
        """Whether no key is asked for there."""
        return path in ("/health", "/v1/health")

    def answer(self, request: Request) -> Steps:
        """The generator of the answer. Order of checks: key, route, method, still starting."""
        route: Callable[[Request], Steps] | None
        method, route = self._routes.get(request.path, ("", None))
        if not self.is_open(request.path) and not self._allowed(request):
            return error(401, "Invalid API Key", "authentication_error")
        if route is None:
            return error(404, "File Not Found", "not_found_error")
        if request.method != method:
            return error(405, f"Use {method}", "invalid_request_error")
        if self._age_s() < self.knobs.startup_s:
            return error(503, "Loading model", "unavailable_error")
        return route(request)

    def _allowed(self, request: Request) -> bool:
        sent = request.headers.get("authorization", "")
        return not self._key or hmac.compare_digest(sent.encode("latin-1"), f"Bearer {self._key}".encode())

    def _age_s(self) -> float:
        return time.monotonic() - self._started_at

    def _health(self, _request: Request) -> Steps:
        if self.knobs.health_hangs_after_s is not None and self._age_s() >= self.knobs.health_hangs_after_s:
            yield _WAIT_FOR_EVER
        if self.knobs.health_fails_after_s is not None and self._age_s() >= self.knobs.health_fails_after_s:
            yield from error(500, "unhealthy, as told", "server_error")
            return
        yield as_json({"status": "ok"})

    def _models(self, _request: Request) -> Steps:
        yield as_json({"object": "list", "data": [{"id": self.model, "object": "model", "owned_by": "hostler-mock"}]})

    def _metrics(self, _request: Request) -> Steps:
        shown = dict.fromkeys(self.count, 0) if self.knobs.counters_stuck else dict(self.count)
        if not self.knobs.counters_stuck:
            shown["tokens"] += int(self.knobs.busy_tokens_per_s * self._age_s())
        yield an_answer(_METRICS.format(**shown).encode(), "text/plain; version=0.0.4")

    def _state(self, _request: Request) -> Steps:
        yield as_json({"pid": os.getpid(), "age_s": self._age_s(), "last_request": self._last, **self.count})

    def _tokenize(self, request: Request) -> Steps:
        """As llama.cpp has it (``content``) and as vLLM and SGLang have it (``prompt``)."""
        body = as_object(request.body) or {}
        asked = body.get("content", body.get("prompt"))
        if not isinstance(asked, str):
            yield from error(400, "'content' or 'prompt' must be a string", "invalid_request_error")
            return
        tokens = text.tokens(asked)
        more = {} if "content" in body else {"count": len(tokens), "max_model_len": MODEL_LENGTH}
        yield as_json({"tokens": tokens, **more})

    def work(self, request: Request, route: Callable[[Body], Steps]) -> Steps:
        """What completions, chat and embeddings share: parsing, faults, latency, slots."""
        body = as_object(request.body)
        if body is None:
            yield from error(400, "The body is not a JSON object", "invalid_request_error")
            return
        self._last = body
        number, knobs = self.count["started"], self.knobs
        self.count["started"] += 1
        if knobs.crash_after_n is not None and number >= knobs.crash_after_n:
            print(f"mock: crashes at request {number + 1}, as told", file=sys.stderr, flush=True)
            os._exit(knobs.exit_code)
        if knobs.hang or knobs.busy_tokens_per_s or (knobs.hang_after_n is not None and number >= knobs.hang_after_n):
            yield from self._counted(iter((_WAIT_FOR_EVER,)))
        if next(self._dice) < knobs.error_rate:
            yield from error(500, "failed, as told", "server_error")
            return
        yield from self._counted(route(body))

    def _counted(self, steps: Steps) -> Steps:
        """Play ``steps`` while holding a slot; whatever ends them gives it back."""
        self.count["waiting"] += 1
        state = "waiting"
        try:
            while self.knobs.slots and self.count["active"] >= self.knobs.slots:
                yield _SLOT_POLL_S
            self.count["waiting"] -= 1
            self.count["active"] += 1
            state = "active"
            if self.knobs.latency_ms:
                yield self.knobs.latency_ms / 1000
            yield from steps
            self.count["finished"] += 1
        except GeneratorExit:
            self.count["cancelled"] += 1
            raise
        finally:
            self.count[state] -= 1

    def embeddings(self, body: Body) -> Steps:
        inputs = body.get("input", "")
        inputs = [inputs] if isinstance(inputs, str) else list(inputs)
        used = sum(len(text.tokens(str(item))) for item in inputs)
        self.count["prompt_tokens"] += used
        data = [
            {"object": "embedding", "index": index, "embedding": text.embedding(str(item), self.knobs.seed)}
            for index, item in enumerate(inputs)
        ]
        usage = {"prompt_tokens": used, "total_tokens": used}
        yield as_json({"object": "list", "model": self.model, "data": data, "usage": usage})

    def completion(self, body: Body) -> Steps:
        prompt = body.get("prompt", "")
        prompt = prompt if isinstance(prompt, str) else " ".join(map(str, prompt))
        choice = _choice_with_ids if body.get("return_token_ids") is True else _choice
        return self._generate(body, prompt, "cmpl", "text_completion", choice)

    def chat(self, body: Body) -> Steps:
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            return error(400, "'messages' must be a list that is not empty", "invalid_request_error")
        prompt = "\n".join(str(item.get("content", "")) if isinstance(item, dict) else "" for item in messages)
        if body.get("stream"):
            return self._generate(body, prompt, "chatcmpl", "chat.completion.chunk", _delta)
        return self._generate(body, prompt, "chatcmpl", "chat.completion", _message)

    def _generate(self, body: Body, prompt: str, prefix: str, kind: str, choice: Callable[[str], Body]) -> Steps:
        seed = body.get("seed")
        seed = seed if isinstance(seed, int) else self.knobs.seed
        asked = body.get("max_tokens", body.get("max_completion_tokens"))
        wanted = asked if isinstance(asked, int) and asked >= 0 else self.knobs.max_tokens
        used = len(text.tokens(prompt))
        self.count["prompt_tokens"] += used
        number = self.count["started"]
        head = {
            "id": f"{prefix}-{number}",
            "object": kind,
            "created": int(time.time()),
            "model": self.model,
            # which attempt of which replica made it, in its own words
            "system_fingerprint": os.environ.get("HOSTLER_MARK", "mock"),
        }
        reason = "stop" if asked is None else "length"
        usage = {"prompt_tokens": used, "completion_tokens": wanted, "total_tokens": used + wanted}
        pieces = self._paced(text.words(prompt, seed, wanted))
        if body.get("stream"):
            yield from _stream(head, pieces, choice, reason, usage if _wants_usage(body) else None)
            return
        whole = []
        for step in pieces:
            if isinstance(step, str):
                whole.append(step)
            else:
                yield step
        choices = [{"index": 0, "finish_reason": reason, "logprobs": None, **choice("".join(whole))}]
        yield as_json({**head, "choices": choices, "usage": usage})

    def _paced(self, pieces: Iterator[str]) -> Pieces:
        """The pieces, with the waits between them that the knobs ask for. Counts each as it is made."""
        begun = time.monotonic() + self.knobs.ttft_ms / 1000
        for index, piece in enumerate(pieces):
            # from the start and not from the last token, so that the rate does not drift
            due = begun + (index / self.knobs.tokens_per_s if self.knobs.tokens_per_s else 0)
            wait_s = due - time.monotonic()
            if wait_s > 0:
                yield wait_s
            self.count["tokens"] += 1
            yield piece


def _choice(piece: str) -> Body:
    return {"text": piece}


def _choice_with_ids(piece: str) -> Body:
    return {"text": piece, "token_ids": text.tokens(piece)}


def _message(piece: str) -> Body:
    return {"message": {"role": "assistant", "content": piece}}


def _delta(piece: str) -> Body:
    return {"delta": {"content": piece}}


def _wants_usage(body: Body) -> bool:
    options = body.get("stream_options")
    return isinstance(options, dict) and bool(options.get("include_usage"))


def _stream(head: Body, steps: Pieces, choice: Callable[[str], Body], reason: str, usage: Body | None) -> Steps:
    yield (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    if choice is _delta:
        yield _event({**head, "choices": [{"index": 0, "finish_reason": None, "delta": {"role": "assistant"}}]})
    for step in steps:
        if isinstance(step, str):
            yield _event({**head, "choices": [{"index": 0, "finish_reason": None, **choice(step)}]})
        else:
            yield step
    last: Body = {"delta": {}} if choice is _delta else choice("")
    yield _event({**head, "choices": [{"index": 0, "finish_reason": reason, **last}]})
    if usage is not None:
        yield _event({**head, "choices": [], "usage": usage})
    yield _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


def _event(value: Body) -> bytes:
    return _chunk(b"data: " + json.dumps(value).encode() + b"\n\n")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def as_object(body: bytes) -> Body | None:
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def as_json(value: object, status: int = 200) -> bytes:
    return an_answer(json.dumps(value).encode(), "application/json", status)


def error(status: int, message: str, kind: str) -> Steps:
    yield as_json({"error": {"message": message, "type": kind, "code": status}}, status)


def an_answer(body: bytes, kind: str, status: int = 200) -> bytes:
    first = f"HTTP/1.1 {status} {_PHRASES.get(status, 'Error')}"
    return f"{first}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode("latin-1") + body
