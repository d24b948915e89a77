"""An engine that costs next to nothing: what stands behind the gateways that are measured.

One epoll loop. A completion is one fixed answer; a streamed one is ``TOKENS`` events, one each ``GAP_S``, of which each
carries the monotonic time at which it was sent, so that a reader on the same machine knows how long it was on its way.
Standard library only: a stack runs it as the command of a replica, ``upstream.py PORT [HOST] [CORE]``.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import selectors
import socket
import sys
import time

TOKENS = 40
GAP_S = 0.05
MODEL = "bench"
#: Written where the time of sending goes; ``time.monotonic()`` in microseconds, of one width always.
STAMP = "%016d"
_USAGE = '"usage":{"prompt_tokens":8,"completion_tokens":4,"total_tokens":12}'
_COMPLETION = (
    '{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"bench","choices":[{"index":0,'
    '"message":{"role":"assistant","content":"the engine is ready"},"finish_reason":"stop"}],' + _USAGE + "}"
).encode()
_MODELS = b'{"object":"list","data":[{"id":"bench","object":"model","created":1700000000,"owned_by":"bench"}]}'
_CHUNK = (
    'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"bench","choices":'
    '[{"index":0,"delta":{"content":"' + STAMP + '"},"finish_reason":null}]}\n\n'
)
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_STREAM_END = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"bench","choices":'
    b'[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)


def _answer(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


_ANSWER = _answer(_COMPLETION)
_ANSWER_MODELS = _answer(_MODELS)
_ANSWER_OTHER = _answer(b'{"status":"ok"}')


class _Stream:
    __slots__ = ("client", "left")

    def __init__(self, client: _Client) -> None:
        self.client, self.left = client, TOKENS


class _Client:
    __slots__ = ("buffer", "open", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.buffer, self.open = sock, b"", True


class Upstream:
    """Serves until the process ends."""

    def __init__(self, host: str, port: int) -> None:
        self._listener = socket.create_server((host, port), backlog=4096)
        self._listener.setblocking(False)
        self._selector = selectors.EpollSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._due: list[tuple[float, int, _Stream]] = []
        self._serial = 0

    def serve(self) -> None:
        while True:
            wait_s = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
            for key, _ in self._selector.select(wait_s):
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._read(key.data)
            self._send_what_is_due()

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                sock, _ = self._listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._selector.register(sock, selectors.EVENT_READ, _Client(sock))

    def _read(self, client: _Client) -> None:
        try:
            data = client.sock.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            self._close(client)
            return
        client.buffer += data
        while client.open and (length := _request_length(client.buffer)) is not None:
            request, client.buffer = client.buffer[:length], client.buffer[length:]
            self._reply(client, request)

    def _reply(self, client: _Client, request: bytes) -> None:
        if request.startswith(b"POST"):
            if b'"stream":true' in request or b'"stream": true' in request:
                if self._send(client, _STREAM_HEAD):
                    self._plan(time.monotonic(), _Stream(client))
            else:
                self._send(client, _ANSWER)
        else:
            self._send(client, _ANSWER_MODELS if request.startswith(b"GET /v1/models") else _ANSWER_OTHER)

    def _plan(self, at_s: float, stream: _Stream) -> None:
        self._serial += 1
        heapq.heappush(self._due, (at_s, self._serial, stream))

    def _send_what_is_due(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic():
            at_s, _, stream = heapq.heappop(self._due)
            if not stream.client.open:
                continue
            if stream.left:
                stream.left -= 1
                text = (_CHUNK % (time.monotonic_ns() // 1000)).encode()
                if self._send(stream.client, _chunk(text)):
                    self._plan(at_s + GAP_S, stream)
            else:
                self._send(stream.client, _chunk(_STREAM_END) + b"0\r\n\r\n")

    def _send(self, client: _Client, data: bytes) -> bool:
        """Whoever does not read what is sent is cut off: a full buffer must not hold up the others."""
        try:
            if client.sock.send(data, socket.MSG_DONTWAIT) == len(data):
                return True
        except (BlockingIOError, ConnectionError):
            pass
        self._close(client)
        return False

    def _close(self, client: _Client) -> None:
        if client.open:
            client.open = False
            self._selector.unregister(client.sock)
            client.sock.close()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _request_length(buffer: bytes) -> int | None:
    """Bytes of the whole request, None while some of it is missing."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = buffer[:end].lower()
    at = head.find(b"\r\ncontent-length:")
    if at >= 0:
        stop = head.find(b"\r\n", at + 2)
        length = end + 4 + int(head[at + 17 : stop if stop > 0 else None])
        return length if len(buffer) >= length else None
    if b"\r\ntransfer-encoding: chunked" in head:
        last = buffer.find(b"\r\n0\r\n\r\n", end)
        return last + 7 if last >= 0 else None
    return end + 4


def main(arguments: list[str]) -> None:
    port, host, core = (*arguments, "127.0.0.1", "-1")[:3] if len(arguments) < 3 else arguments[:3]
    if int(core) >= 0:
        os.sched_setaffinity(0, {int(core)})
    Upstream(host, int(port)).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
