"""Log lines: plain or JSON, with their request id, and never a secret."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest

from app import log
from app.settings import Settings


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers, _ = before, root.setLevel(level)


def settings(**more: str) -> Settings:
    return replace(Settings.load({}), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "line, hidden",
    [
        ("key hostler_abcdefghijklmnopqrstuvwxyz0123456789", "abcdefghijkl"),
        ("postgresql://user:hunter2@host/db", "hunter2"),
        ("Authorization: Bearer abcdef0123456789", "abcdef0123456789"),
        ("X-API-Key: some-long-secret", "some-long-secret"),
        ('{"password": "hunter2", "a": 1}', "hunter2"),
        ("HF_TOKEN=hunter2 and more", "hunter2"),
        ("api_key='hunter2'", "hunter2"),
        ("token=hunter2&next=1", "hunter2"),
    ],
)
def test_secrets_are_masked(line: str, hidden: str) -> None:
    assert hidden not in log.scrub(line)
    assert log.MASK in log.scrub(line)


def test_ordinary_lines_stay_as_they_are() -> None:
    for line in ("GET /api/v1/replicas 200 1.5 ms", "12 tokens per second", "http://127.0.0.1:20000/v1"):
        assert log.scrub(line) == line


def test_the_settings_own_secrets_are_masked(stream: io.StringIO) -> None:
    log.configure(settings(api_key="my-very-own-admin-key-0001"), "web", stream)
    logging.getLogger("t").error("it was %s", "my-very-own-admin-key-0001")
    assert "my-very-own" not in stream.getvalue()


def test_what_a_caller_sends_makes_no_line_of_its_own(stream: io.StringIO) -> None:
    log.configure(settings(), "web", stream)
    logging.getLogger("t").warning("GET %s", "/a\r\n2026 ERROR forged\x1b[2J\u2028é")
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().endswith("GET /a\\r\\n2026 ERROR forged\\x1b[2J\\u2028é\n")


def test_json_lines(stream: io.StringIO) -> None:
    log.configure(settings(log_format="json"), "web", stream)
    token = log.request_id.set("r-1")
    try:
        try:
            raise ValueError("password=hunter2")
        except ValueError:
            logging.getLogger("t").exception("broken %s", "thing")
    finally:
        log.request_id.reset(token)
    line = json.loads(stream.getvalue())
    assert (line["message"], line["level"], line["role"], line["request_id"]) == ("broken thing", "error", "web", "r-1")
    assert "ValueError" in line["exception"]
    assert "hunter2" not in line["exception"]


def test_plain_lines(stream: io.StringIO) -> None:
    log.configure(settings(), "web", stream)
    log.configure(settings(), "web", stream)
    logging.getLogger("t").warning("hello")
    logging.getLogger("t").debug("not shown")
    assert stream.getvalue().count("hello") == 1
    assert "not shown" not in stream.getvalue()


def test_every_secret_setting_is_hidden(stream: io.StringIO) -> None:
    token = "hf-of-the-operator-0123"
    log.configure(settings(hf_token=token), "web", stream)
    logging.getLogger("any").warning("the hub was told %s", token)
    assert "the hub was told" in stream.getvalue()
    assert token not in stream.getvalue()
