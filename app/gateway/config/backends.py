"""Our own servers behind the door: the control API and Flower."""

from __future__ import annotations

from app import errors
from app.gateway.config.door import CONTROL, FLOWER
from app.gateway.config.options import Options
from app.gateway.config.problems import http_error
from app.gateway.config.process import IDLE_SERVER_S
from app.gateway.config.text import indented, literal, quoted
from app.gateway.places import socket_address
from app.stack.layout import FLOWER_SOCKET, WEB_SOCKET

#: Looked at often: a control API that is back is used again within a moment.
_LOOK = "check inter 1s fastinter 250ms downinter 250ms fall 2 rise 1"


def lines(options: Options) -> list[str]:
    """``backend control`` and ``backend flower``."""
    return [*_control(options), "", *_flower(options)]


def _control(options: Options) -> list[str]:
    return indented(
        [
            f"backend {CONTROL} from base",
            "# longer than the longest wait of a request; streams send a line more often",
            f"timeout server {options.control_silence_s}s",
            http_error(
                errors.Unavailable,
                detail="The control API does not answer; what is served goes on. Try again; see `hostler doctor`.",
            ),
            f"server web {socket_address(WEB_SOCKET)} {_LOOK} pool-purge-delay {IDLE_SERVER_S}s",
        ]
    )


def _flower(options: Options) -> list[str]:
    return indented(
        [
            f"backend {FLOWER} from base",
            http_error(errors.Unavailable, detail="Flower does not answer. Try again; see `hostler status`."),
            "http-request redirect code 302 location /flower/ if { path /flower }",
            "# the caller's key was judged at the door; Flower gets the password that it was started with",
            "http-request del-header X-API-Key",
            f"http-request set-header Authorization {quoted(f'Basic {literal(options.flower_credentials)}')}",
            f"server flower {socket_address(FLOWER_SOCKET)} {_LOOK} pool-purge-delay {IDLE_SERVER_S}s",
        ]
    )
