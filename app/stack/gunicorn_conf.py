"""How gunicorn serves the control API: ``python -m gunicorn -c python:app.stack.gunicorn_conf``."""

from __future__ import annotations

import gc
import os
import shutil
import threading
from typing import Any

from app.settings import Settings
from app.stack.layout import Layout, ensure_run_dir
from app.stack.runas import INSTALL_ROOT

_settings = Settings.load()
_layout = Layout(_settings.state_dir)

wsgi_app = "app:create_app()"
# only the gateway asks: the public port, TLS and the limits of an edge are HAProxy's
bind = [f"unix:{_layout.web_socket}"]
workers = _settings.web_workers
# thousands of streams and waiting requests cost a greenlet each
worker_class = "app.api.serving.Worker"
worker_connections = 12_000
backlog = 2048
# gunicorn puts this folder first on the path; the caller's may hold an app/ of its own
chdir = str(INSTALL_ROOT)
# it lies at one place per user: two stacks would share it
control_socket_disable = True
# what still waits or streams after this is cut with its process
graceful_timeout = 5
timeout = 60
# longer than HAProxy keeps an idle connection to it (app/gateway/config/process.py): who closes last meets no request
keepalive = 75
umask = 0o077
# a heartbeat file on a slow disk makes a worker look hung
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108  (made by mkstemp)
loglevel = "warning" if _settings.log_level == "info" else _settings.log_level
accesslog = None
errorlog = "-"

ensure_run_dir(_settings.state_dir)
# counters of all processes, added up by whichever is asked; prometheus_client reads the name when it is first imported
_metrics = _layout.run / "metrics"
shutil.rmtree(_metrics, ignore_errors=True)
_metrics.mkdir(mode=0o700)
os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(_metrics)


def when_ready(_server: Any) -> None:
    """gunicorn makes its socket as wide as the umask lets it; a socket needs no right to be executed."""
    _layout.web_socket.chmod(0o600)


def post_worker_init(worker: Any) -> None:
    """The process's first create should not pay for its connections; nor should its start wait for them."""
    from app.api.application import warm_up

    # what was loaded so far stays for good: looking through it for garbage would only hold up requests
    gc.freeze()
    threading.Thread(target=warm_up, args=(worker.wsgi,), name="warm-up", daemon=True).start()
