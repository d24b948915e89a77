"""What every error of the API looks like."""

from __future__ import annotations

from typing import Any

from werkzeug.test import TestResponse


def assert_problem(answer: TestResponse, status: int, code: str) -> dict[str, Any]:
    """That it is that error, told as all of them are; its body."""
    assert answer.status_code == status, answer.get_data(as_text=True)
    assert answer.mimetype == "application/problem+json"
    body: dict[str, Any] = answer.get_json(force=True)
    assert body["status"] == status
    assert body["code"] == code
    assert isinstance(body["error"], str)
    assert body["request_id"] == answer.headers["X-Request-Id"]
    assert {"type", "title", "detail", "instance", "errors"} <= set(body)
    return body
