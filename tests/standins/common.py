"""What the stand-ins share: the real program's flags, and the mock engine's server behind them.

They take every flag that the real program takes, refuse any other, and obey those that decide where, for whom and under
which name they serve. ``STANDIN_KNOBS`` in the environment holds the mock engine's knobs as JSON.
"""

# ruff: noqa: T201  (what it prints is the attempt's log)
from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parents[1] / "app" / "engines" / "programs"))

from mock_server import answers, main, text  # type: ignore[import-not-found]  # noqa: E402
from mock_server.knobs import Knobs  # type: ignore[import-not-found]  # noqa: E402

__all__ = ["Answers", "Knobs", "answers", "flags", "serve", "text"]


def flags(program: str, **more: Any) -> argparse.ArgumentParser:
    """A parser of the flags in ``program.flags``: each line says what follows (nothing, one word, some), and names."""
    parser = argparse.ArgumentParser(prog=program, **more)
    for line in (FOLDER / f"{program}.flags").read_text().splitlines():
        kind, *names = line.split()
        how: dict[str, Any] = {
            "flag": {"action": "store_true"},
            "switch": {"action": argparse.BooleanOptionalAction},
            "some": {"nargs": "+"},
            "one": {},
        }[kind]
        parser.add_argument(*names, **how)
    return parser


class Answers(answers.Answers):  # type: ignore[misc]
    """The mock engine's answers, of a server that knows the model by its names only; None: it does not look."""

    names: list[str] | None = None

    def work(self, request: Any, route: Any) -> Any:
        body = answers.as_object(request.body)
        if body is not None and self.names is not None and body.get("model", self.model) not in self.names:
            return answers.error(404, f"The model `{body['model']}` does not exist.", "NotFoundError")
        return super().work(request, route)

    def detokenize(self, request: Any) -> Any:
        body = answers.as_object(request.body) or {}
        if not isinstance(body.get("tokens"), list):
            return answers.error(400, "'tokens' must be a list", "BadRequestError")
        return iter([answers.as_json({"prompt": " ".join(map(str, body["tokens"]))})])


def serve(host: str, port: int, model: str, made: Answers) -> None:
    """Serve until told to end, as the mock engine does; a start is told in the folder it was started in."""
    main.record_start(os.getcwd())
    main.serve({"host": host, "port": port, "model": model}, made.knobs, made)


def knobs() -> Knobs:
    """What ``STANDIN_KNOBS`` asks for."""
    return Knobs(json.loads(os.environ.get("STANDIN_KNOBS", "{}")))


def counter_lines(counts: dict[str, float], labels: str) -> bytes:
    """Prometheus text of counters with the same labels."""
    return "".join(f"# TYPE {name} counter\n{name}{{{labels}}} {value}\n" for name, value in counts.items()).encode()


def refuse_missing(path: str) -> None:
    """End as the real programs do when a model's folder is not there."""
    if path.startswith("/") and not os.path.isdir(path):
        print(f"ValueError: cannot read model {path}: No such file or directory", file=sys.stderr, flush=True)
        sys.exit(1)
