"""Start, faults at start, signals, end.

Exit codes: 0 after a signal, 3 when the port cannot be bound, else what the knobs say.
"""

# ruff: noqa: T201  (what it prints is the attempt's log)
from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time

from .answers import Answers
from .knobs import Knobs
from .serving import Loop

TYPE_CHECKING = False  # importing typing would take a third of the start
if TYPE_CHECKING:
    from typing import Any


def main(path: str) -> None:
    """Serve until told to end. ``path`` holds ``host, port, model, knobs``; the key is in HOSTLER_ENGINE_KEY."""
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    record_start(os.path.dirname(path))
    knobs = Knobs(config["knobs"])
    serve(config, knobs, Answers(config["model"], os.environ.get("HOSTLER_ENGINE_KEY", ""), knobs))


def serve(config: dict[str, Any], knobs: Knobs, answers: Answers) -> None:
    """Serve ``answers`` at ``host`` and ``port`` of ``config``, with the faults at start that ``knobs`` ask for."""
    for line in knobs.log_lines:
        print(line, flush=True)
    if knobs.exit_on_start is not None:
        _end(knobs.exit_on_start, f"exits at once with code {knobs.exit_on_start}, as told")
    loop = Loop()
    _obey_signals(loop, knobs)
    if knobs.exit_after_s is not None:
        loop.call_later(knobs.exit_after_s, lambda: _end(knobs.exit_code, "exits in the middle, as told"))
    late_s = 0 if knobs.startup_answers_503 else knobs.startup_s
    loop.call_later(late_s, lambda: _listen(loop, answers, config))
    loop.run()


def record_start(folder: str) -> None:
    """One line per start, so that a test can prove that there was one."""
    with open(os.path.join(folder, "starts"), "a", encoding="ascii") as file:
        file.write(f"{os.getpid()} {time.time():.6f}\n")


def _listen(loop: Loop, answers: Answers, config: dict[str, Any]) -> None:
    family = socket.AF_INET6 if ":" in config["host"] else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config["host"], config["port"]))
        listener.listen(1024)
    except OSError as error:
        _end(3, f"cannot listen on {config['host']}:{config['port']}: {error.strerror}")
    loop.serve(listener, answers)
    print(f"mock: {config['model']} is served at http://{config['host']}:{config['port']}", flush=True)


def _obey_signals(loop: Loop, knobs: Knobs) -> None:
    if knobs.ignore_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    else:
        loop.on_signal(lambda: loop.call_later(knobs.stop_s, lambda: _end(0, "stopped by signal")))


def _end(code: int, message: str) -> None:
    print(f"mock: {message}", file=sys.stderr if code else sys.stdout, flush=True)
    os._exit(code)
