"""Flower behind a password, read-only: it leaves pages, ``/metrics`` and ``/healthcheck`` open by itself.

It serves below ``/flower/`` on a Unix socket, which the gateway asks with the password, and on a loopback port where
one is set.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import signal
from typing import Any

from celery import Celery
from flower.app import Flower
from flower.options import options
from flower.urls import settings as flower_settings
from flower.utils import prepend_url
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.ioloop import IOLoop
from tornado.netutil import bind_unix_socket
from tornado.web import RequestHandler

from app.settings import Settings
from app.stack.layout import Layout, ensure_run_dir
from app.stack.secrets import flower_password

USER = "hostler"
PREFIX = "flower"
#: Tasks it remembers. Its own default, 100,000, takes a gigabyte, and the history is in the database.
MAX_TASKS = 2000


def serve(celery: Celery, settings: Settings) -> None:
    """Serve Flower until SIGTERM."""
    options.url_prefix = PREFIX
    options.basic_auth = [f"{USER}:{flower_password(settings)}"]
    options.read_only = True
    options.enable_events = settings.task_events
    options.max_tasks = MAX_TASKS
    loop = IOLoop.current()
    # its own command line puts the prefix before these, and nothing else does
    below = {name: prepend_url(flower_settings[name], PREFIX) for name in ("login_url", "static_url_prefix")}
    flower = _GuardedFlower(capp=celery, options=options, io_loop=loop, **{**flower_settings, **below})
    signal.signal(signal.SIGTERM, lambda *_: loop.add_callback_from_signal(loop.stop))
    server = HTTPServer(flower)
    ensure_run_dir(settings.state_dir)
    server.add_socket(bind_unix_socket(str(Layout(settings.state_dir).flower_socket), mode=0o600))
    if settings.flower_port:
        server.listen(settings.flower_port, "127.0.0.1")
    flower.start()
    # it keeps nothing, and its threads wait for answers of workers that are ending too
    os._exit(0)


class _GuardedFlower(Flower):
    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        if not _is_known(request.headers.get("Authorization", ""), self.options.basic_auth):
            return self.get_handler_delegate(request, _Refused)
        return super().find_handler(request, **kwargs)


class _Refused(RequestHandler):
    def prepare(self) -> None:
        self.set_status(401)
        self.set_header("WWW-Authenticate", 'Basic realm="Flower"')
        self.finish("a user and a password are required\n")


def _is_known(header: str, credentials: list[str]) -> bool:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        sent = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        return False
    return any(hmac.compare_digest(sent, known.encode()) for known in credentials)
