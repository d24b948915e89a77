"""The bytes of a probe: one small GET and as much of its answer as the verdict needs. No sockets here."""

from __future__ import annotations

from dataclasses import dataclass

#: A health answer larger than this is not read to its end; its connection is not kept.
MAX_ANSWER_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """Whom to ask, and how long to wait for the whole answer. ``key`` is sent as a bearer token when not empty."""

    host: str
    port: int
    path: str = "/health"
    key: str = ""
    timeout_s: float = 5.0


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """``ok`` is a 2xx answer in time. ``detail`` says in words what was seen; ``status`` is None without an answer.

    ``heard``: something took the request, whatever it made of it.
    """

    ok: bool
    status: int | None
    latency_ms: float
    detail: str
    heard: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, or the part of it that decides."""

    status: int
    #: the connection can carry the next request
    reusable: bool


class NotHttp(ValueError):
    """What listens there does not speak HTTP."""


def request_bytes(target: ProbeTarget) -> bytes:
    """The request. Never holds a line break that ``path`` or ``key`` smuggled in. Raises ValueError."""
    lines = [
        f"GET {target.path} HTTP/1.1",
        f"Host: {f'[{target.host}]' if ':' in target.host else target.host}:{target.port}",
        "User-Agent: hostler-probe",
        "Accept: */*",
    ]
    if target.key:
        lines.append(f"Authorization: Bearer {target.key}")
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a probe's path, host and key must not hold line breaks")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def parse_answer(data: bytes | bytearray) -> Answer | None:
    """The answer at the start of ``data``, or None while more must arrive. Raises NotHttp.

    Redirects are answers like any other: a probe never goes elsewhere.
    """
    if not data.startswith(b"HTTP/1."[: len(data)]):
        raise NotHttp
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if len(data) > MAX_ANSWER_BYTES:
            raise NotHttp
        return None
    if not data[9:12].isdigit():
        raise NotHttp
    status = int(data[9:12])
    head = bytes(data[:end]).lower()
    length = _content_length(head)
    if length is None or length > MAX_ANSWER_BYTES:
        # the verdict stands; where the body ends is not worth finding out
        return Answer(status, reusable=False)
    if len(data) < end + 4 + length:
        return None
    kept = head.startswith(b"http/1.1") and b"\r\nconnection: close" not in head
    return Answer(status, reusable=kept and len(data) == end + 4 + length)


def verdict(status: int, latency_ms: float) -> ProbeResult:
    """What an answer of that status means."""
    return ProbeResult(200 <= status < 300, status, latency_ms, f"HTTP {status}", heard=True)


def no_answer(latency_ms: float, detail: str, *, heard: bool = False) -> ProbeResult:
    """What it means that no answer came."""
    return ProbeResult(False, None, latency_ms, detail, heard)


def _content_length(head: bytes) -> int | None:
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        return None
    value = head[at + 17 :].split(b"\r\n", 1)[0].strip()
    return int(value) if value.isdigit() else None
