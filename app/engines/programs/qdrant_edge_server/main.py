"""Start, signals, end. That no other process has the storage open is seen to by who starts it (locked_storage.py).

Exit codes: 0 after a signal, 2 when the storage cannot be read, 3 when the port cannot be bound.
"""

# ruff: noqa: T201  (what it prints is the attempt's log)
from __future__ import annotations

import importlib.util
import json
import os
import resource
import socket
import sys

from ..mock_server.serving import Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: As often as Qdrant writes to disk what its log holds already.
FLUSH_S = 5.0


def main(path: str) -> None:
    """Serve until told to end. ``path`` holds ``host, port, name, storage``; the key is in
    HOSTLER_ENGINE_KEY."""
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    # a file for each collection and each caller
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    listener = _bind(config["host"], config["port"])
    _add_site_packages()
    from .answers import Answers
    from .store import Damaged, Store

    try:
        store = Store(config["storage"])
    except Damaged as error:
        _give_up(2, str(error))
    loop = Loop()
    # only now: until it listens, connections are refused and it is not ready
    listener.listen(1024)
    loop.serve(listener, Answers(store, os.environ.get("HOSTLER_ENGINE_KEY", "")))
    loop.on_signal(lambda: _end(store))
    _flush_again(loop, store)
    where = f"http://{config['host']}:{config['port']}"
    print(f"qdrant-edge: {config['name']} is served at {where}, {len(store.names())} collections", flush=True)
    loop.run()


def _bind(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        _give_up(3, f"cannot listen on {host}:{port}: {error.strerror}")
    return listener


def _add_site_packages() -> None:
    """Only the folder itself: ``site`` would also run every .pth file."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(sys.executable)))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folder = os.path.join(root, "lib", version, "site-packages")
    if os.path.isdir(os.path.join(folder, "qdrant_edge")):
        sys.path.append(folder)
    else:
        import site

        site.main()
    if importlib.util.find_spec("qdrant_edge") is None:
        _give_up(2, "No module named qdrant_edge; install the wheel qdrant-edge-py, or run `make venv`")


def _flush_again(loop: Loop, store: Any) -> None:
    def flush() -> None:
        for line in store.flush():
            print(f"qdrant-edge: {line}", file=sys.stderr, flush=True)
        loop.call_later(FLUSH_S, flush)

    loop.call_later(FLUSH_S, flush)


def _end(store: Any) -> None:
    troubles = store.close()
    for line in troubles:
        print(f"qdrant-edge: {line}", file=sys.stderr, flush=True)
    print("qdrant-edge: stopped by signal", flush=True)
    # threads of the engine may still tear themselves down; nothing of it needs saving
    os._exit(0)


def _give_up(code: int, message: str) -> None:
    print(f"qdrant-edge: {message}", file=sys.stderr, flush=True)
    os._exit(code)
