"""A real browser for tests: it opens a page of a server of ours, and the page itself tells what it saw."""

from __future__ import annotations

import http.server
import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

#: By the names that Debian, and others, install it under.
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
SEEN_S = 60
#: What every page has: it runs ``act`` and sends what comes of it to the server that it came from.
PAGE = """<!doctype html><meta charset="utf-8"><title>test</title>
<script>
const report = (found) => fetch("/report", {{method: "POST", body: JSON.stringify(found)}});
async function act() {{ {script} }}
act().then(report, (error) => report({{error: String(error)}}));
</script>
"""


def browser() -> str | None:
    """The program, None where none is installed."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@dataclass
class Site:
    """Pages of one origin."""

    server: http.server.ThreadingHTTPServer
    told: queue.Queue[dict[str, Any]] = field(default_factory=queue.Queue)
    page: str = ""

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def see(self, script: str) -> dict[str, Any]:
        """Open a page that runs ``script``, the body of an async function; what it returned, or its error."""
        self.page = PAGE.format(script=script)
        with _open(f"{self.origin}/"):
            return self.told.get(timeout=SEEN_S)


@contextmanager
def site() -> Iterator[Site]:
    """An origin of its own."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = made.page.encode() if self.path == "/" else b""
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            made.told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    made = Site(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()
        thread.join()


@contextmanager
def _open(url: str) -> Iterator[None]:
    program = browser()
    assert program is not None, "ask browser() first"
    with tempfile.TemporaryDirectory(prefix="hostler-browser-", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [
                program,
                "--headless",
                # keeps it open; without it the page would be closed once it is loaded
                "--remote-debugging-port=0",
                f"--user-data-dir={folder}",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--no-proxy-server",
                # it needs namespaces that containers have not, and the only pages are ours
                "--no-sandbox",
                url,
            ],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": folder, "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield
        finally:
            # its children too: the session is theirs alone
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)
