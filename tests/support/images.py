"""A registry of one image, over HTTP on loopback, that holds back what it serves for as long as a test wants."""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_CONFIG = "application/vnd.docker.container.image.v1+json"


class Images:
    """Serves the image under any name and tag; its layer only once ``served`` is set."""

    def __init__(self, tar: bytes) -> None:
        layer = gzip.compress(tar, 1)
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/usr/bin:/bin"], "Entrypoint": ["/of/the/image"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(tar)]},
        }
        self._config = json.dumps(config).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {"mediaType": _CONFIG, "size": len(self._config), "digest": _digest(self._config)},
            "layers": [{"mediaType": _LAYER, "size": len(layer), "digest": _digest(layer)}],
        }
        self._manifest = json.dumps(manifest).encode()
        self._layer = layer
        self.asked = threading.Event()
        self.served = threading.Event()

    def answer(self, path: str) -> tuple[str, bytes] | None:
        """Type and body for a path; None when there is no such thing."""
        if path == "/v2/":
            return "application/json", b"{}"
        if "/manifests/" in path:
            return _MANIFEST, self._manifest
        if path.endswith(_digest(self._config)):
            return _CONFIG, self._config
        if path.endswith(_digest(self._layer)):
            self.asked.set()
            self.served.wait(60)
            return "application/octet-stream", self._layer
        return None


@contextmanager
def serving_images(tar: bytes, port: int) -> Iterator[Images]:
    """On ``port`` of loopback, until the end of the context."""
    images = Images(tar)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found = images.answer(self.path)
            kind, body = found or ("text/plain", b"")
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
            self.end_headers()
            if self.command != "HEAD":
                try:
                    self.wfile.write(body)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # whoever pulled was stopped

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield images
    finally:
        images.served.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
