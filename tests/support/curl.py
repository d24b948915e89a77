"""Requests as documents write them: by curl."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from tests.support.stacks import Stack


def curl(up: Stack, *words: str) -> tuple[int, str]:
    """The status, and what curl prints. The key comes over stdin and not in its arguments."""
    done = subprocess.run(
        ["curl", "-sS", "-N", "--max-time", "60", "-H", "@-", "-w", "\n%{http_code}", *words],
        input=f"X-API-Key: {up.key}\n",
        capture_output=True,
        text=True,
        check=True,
        timeout=90,
    )
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def post(up: Stack, path: str, body: Any, *expect: int) -> Any:
    """``curl -X POST ... -H ... -d ...``; 200 unless ``expect`` says otherwise."""
    status, text = curl(
        up, "-X", "POST", f"{up.url}{path}", "-H", "Content-Type: application/json", "-d", json.dumps(body)
    )
    assert status in (expect or (200,)), text
    return json.loads(text) if text.startswith("{") else text
