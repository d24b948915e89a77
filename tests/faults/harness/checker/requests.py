"""What was asked and what was answered, as the driver's journal has it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Request:
    """One request. ``status`` is None when the answer was lost."""

    id: int
    seed: int
    method: str
    path: str
    body: Any
    key: str | None
    status: int | None = None
    answer: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    query: str = ""
    #: unix seconds
    answered_at: float | None = None

    @property
    def request_id(self) -> str:
        """What it sent as ``X-Request-Id``, by which its task and events are known."""
        return f"f-{self.seed}-{self.id}"

    @property
    def task_id(self) -> str | None:
        """The task it was answered with."""
        return self._told("task_id")

    @property
    def replica_id(self) -> str | None:
        """The replica it was answered with."""
        return self._told("replica_id")

    @property
    def accepted(self) -> bool:
        """The answer says that it is or was carried out. 502 says so of a launch that failed."""
        if self.status is None:
            return False
        return self.status < 300 or (self.status == 502 and self.task_id is not None)

    @property
    def refused(self) -> bool:
        """The answer says that nothing was done and nothing will be."""
        return self.status is not None and 400 <= self.status < 500

    @property
    def is_change(self) -> bool:
        return self.method in ("POST", "PUT", "PATCH", "DELETE")

    @property
    def is_create(self) -> bool:
        return self.method == "POST" and self.path.rstrip("/") == "/api/v1/replicas"

    @property
    def cancels(self) -> str | None:
        """The task that it gives up."""
        words = self.path.strip("/").split("/")
        return words[3] if len(words) == 5 and words[2] == "tasks" and words[4] == "cancel" else None

    def deletes(self) -> str | None:
        """The replica that it may have made the stack forget."""
        if self.method != "DELETE" or not self.path.startswith("/api/v1/replicas/") or self.refused:
            return None
        return self.path.rsplit("/", 1)[1]

    def _told(self, name: str) -> str | None:
        value = self.answer.get(name) if isinstance(self.answer, dict) else None
        return value if isinstance(value, str) and value else None


def read_journal(folder: Path) -> list[dict[str, Any]]:
    """Every line so far; a last line that is still being written is left out."""
    with open(folder / "journal.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.endswith("\n")]


def requests_of(lines: Iterable[dict[str, Any]]) -> list[Request]:
    """The requests among the lines, each with what came back."""
    found: dict[int, Request] = {}
    for line in lines:
        if line["op"] == "request":
            path, _, query = line["path"].partition("?")
            found[line["id"]] = Request(
                line["id"], line["seed"], line["method"], path, line["body"], line["key"], query=query
            )
        elif line["op"] == "answer" and line["id"] in found:
            request = found[line["id"]]
            request.status, request.answer = line["status"], line["body"]
            request.answered_at = line.get("at")
            request.headers = {name.lower(): value for name, value in (line.get("headers") or {}).items()}
    return list(found.values())
