"""How gunicorn serves the slow lane: ``python -m gunicorn -c python:app.gateway.slow_lane.gunicorn_conf``."""

from __future__ import annotations

import os
from typing import Any

from app.settings import Settings
from app.stack.layout import Layout, ensure_run_dir
from app.stack.runas import INSTALL_ROOT

_settings = Settings.load()
_layout = Layout(_settings.state_dir)

wsgi_app = "app.gateway.slow_lane.wsgi:make_application()"
bind = [f"unix:{_layout.slow_lane_socket}"]
# a large body holds up the others of its process while it is parsed
workers = 2
worker_class = "gevent"
worker_connections = 4000
backlog = 2048
# gunicorn puts this folder first on the path; the caller's may hold an app/ of its own
chdir = str(INSTALL_ROOT)
# it lies at one place per user: two stacks would share it
control_socket_disable = True
# streams that are longer are cut with their process
graceful_timeout = 4
timeout = 120
# longer than HAProxy keeps an idle connection to it: who closes last meets no request
keepalive = 75
umask = 0o077
# a heartbeat file on a slow disk makes a worker look hung
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108  (made by mkstemp)
# HAProxy has bounded all of it, by its own buffer
limit_request_line = 0
limit_request_fields = 200
limit_request_field_size = 0
# which methods there are is the engine's to say, as in the fast lane; gunicorn would answer with a page of HTML
permit_unconventional_http_method = True
loglevel = "warning" if _settings.log_level == "info" else _settings.log_level
accesslog = None
errorlog = "-"

ensure_run_dir(_settings.state_dir)


def when_ready(_server: Any) -> None:
    """gunicorn makes its socket as wide as the umask lets it; a socket needs no right to be executed."""
    _layout.slow_lane_socket.chmod(0o600)
