"""Log lines: plain for people or JSON for collectors, each with its request id and without secrets."""

from __future__ import annotations

import json
import logging
import re
import sys
from contextvars import ContextVar
from dataclasses import fields
from datetime import UTC, datetime
from typing import TextIO

from app.settings import Settings

#: The request that a line belongs to; the API and the workers set it.
request_id: ContextVar[str] = ContextVar("request_id", default="")

MASK = "***"
_PLAIN = "%(asctime)s %(levelname)-7s %(name)s%(request)s %(message)s"
_SECRETS = (
    # our own keys, wherever they stand
    (re.compile(r"hostler_[A-Za-z0-9_-]{16,}"), f"hostler_{MASK}"),
    # a password in a URL
    (re.compile(r"(://[^\s:/@]*:)[^\s@]+@"), rf"\1{MASK}@"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {MASK}"),
    (
        re.compile(r"(?i)((?:x-api-key|api_?key|password|passwd|secret|token)[\"']?\s*[=:]\s*[\"']?)[^\s\"',;&}]+"),
        rf"\1{MASK}",
    ),
)
#: What a caller puts into a path or a name must not look like a line of its own, nor move a terminal's cursor.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
#: Secrets of this process that look like nothing in particular.
_literal: set[str] = set()


def configure(settings: Settings, role: str, stream: TextIO | None = None) -> None:
    """Send the process's log to ``stream`` (default: stderr) in the format that is set. Safe to call again."""
    hide(*(getattr(settings, item.name) for item in fields(settings) if item.metadata["secret"]))
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(role) if settings.log_format == "json" else PlainFormatter())
    handler.set_name("hostler")
    root = logging.getLogger()
    root.handlers = [one for one in root.handlers if one.get_name() != "hostler"] + [handler]
    root.setLevel(settings.log_level.upper())
    # it tells at every look that it looks
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # a line for each request that we send, with what was searched for
    logging.getLogger("httpx2").setLevel(logging.WARNING)


def hide(*secrets: str) -> None:
    """Never write these values, whatever line they get into. Short ones are ignored: they would mask words."""
    _literal.update(secret for secret in secrets if len(secret) >= 12)


def scrub(line: str) -> str:
    """``line`` without what looks like a secret or is known to be one."""
    for secret in _literal:
        line = line.replace(secret, MASK)
    for pattern, shown in _SECRETS:
        line = pattern.sub(shown, line)
    return line


class PlainFormatter(logging.Formatter):
    """One line for people: time in UTC, level, logger, request id, message."""

    def __init__(self) -> None:
        super().__init__(_PLAIN)

    def format(self, record: logging.LogRecord) -> str:
        current = request_id.get()
        record.request = f" [{current}]" if current else ""
        return scrub(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        # a traceback comes after it, in lines of its own
        record.message = _CONTROL.sub(_escaped, record.message)
        return super().formatMessage(record)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 (logging's name)
        return _time(record)


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "role": self._role,
            "pid": record.process,
            "logger": record.name,
            "message": scrub(record.getMessage()),
        }
        if current := request_id.get():
            line["request_id"] = current
        if record.exc_info:
            line["exception"] = scrub(self.formatException(record.exc_info))
        return json.dumps(line, default=str)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
