"""The process: limits, sockets of command, and what holds for every part of the configuration."""

from __future__ import annotations

from app.gateway.config import log, problems
from app.gateway.config.options import Options
from app.gateway.config.text import indented
from app.gateway.places import socket_address
from app.stack.layout import HAPROXY_SOCKET

#: Idle connections to a server are closed after this; our own servers keep theirs longer, so that it is never them who
#: close one at the moment a request is put on it.
IDLE_SERVER_S = 30


def lines(options: Options) -> list[str]:
    """``global`` and ``defaults``."""
    return [*_global(options), "", *_defaults(options)]


def _global(options: Options) -> list[str]:
    return indented(
        [
            "global",
            f"log stdout len {log.LINE_BYTES} format raw local0",
            f"stats socket {socket_address(HAPROXY_SOCKET)} mode 600 level admin",
            "stats timeout 1m",
            f"nbthread {options.threads}",
            "# two descriptors a connection, and some for servers' checks: as many as the open-file limit carries",
            f"maxconn {options.connections}",
            "# after a reload the process before it serves its streams to their end, but not for ever",
            "hard-stop-after 1h",
            "# a body that fits beside its headers takes the fast lane; a request that may be tried again is copied",
            "# with the whole buffer: 24 KiB cost what 16 do, 32 a fourteenth more, 64 two fifths",
            f"tune.bufsize {options.lanes.buffer_bytes}",
            "# two stacks that are started on one port at one moment must not both get some of its callers",
            "noreuseport",
            "# more headers than this cost memory here; far fewer are let through (door.py)",
            "tune.http.maxhdr 256",
            "# a caller may not open streams by the thousand on one HTTP/2 connection and cancel them",
            "tune.h2.fe.max-concurrent-streams 100",
            ".if version_atleast(2.8.25)",
            "# nor misuse the protocol (resets, empty frames, pings) without end: the connection is closed",
            "tune.h2.fe.glitches-threshold 1000",
            "tune.h2.fe.max-total-streams 100000",
            ".endif",
            "# callers with TLS older than 1.2 can be read by others; tickets would outlive the key's renewal",
            "ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets",
        ]
    )


def _defaults(options: Options) -> list[str]:
    return indented(
        [
            "defaults base",
            "mode http",
            "log global",
            "option dontlognull",
            *log.lines(),
            "# a caller that went away wants nothing any more: its wait ends, its engine's slot is free",
            "option abortonclose",
            "# each token goes out as it comes: else what follows is waited for, up to 200 ms, to fill a packet",
            "option http-no-delay",
            "# a server of ours that is restarted is back in a moment; only what never reached it is tried again",
            "retries 3",
            "timeout connect 5s",
            "timeout queue 30s",
            "# who sends headers drop by drop holds a connection no longer than this: 408",
            f"timeout http-request {options.header_s}s",
            "# an idle kept connection is closed after this; clients that come back soon find it",
            "timeout http-keep-alive 75s",
            "# a caller that neither reads nor sends for so long in the middle of something is gone",
            f"timeout client {options.caller_silence_s}s",
            "timeout client-fin 10s",
            "timeout server 60s",
            "# a stuck peer may not hold its half of a closed connection",
            "timeout server-fin 10s",
            "timeout tunnel 1h",
            "# a kept connection to a server serves any caller, the first request of each on one that surely lives",
            "http-reuse safe",
            *problems.defaults(),
        ]
    )
