"""Reading JSON: what is refused and why, and how nested messages become flat ones."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.bodies import DEEPEST, flatten, parse_json
from app.api.schemas.replicas import ReplicaCreate
from app.errors import InvalidConfig, Malformed


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"",
        b"\xff",
        b"NaN",
        b"[Infinity]",
        b"[-Infinity]",
        b"1e400",
        b"-1e400",
        b"1" * 21,
        b"18446744073709551616",
        b"-9223372036854775809",
        b"[" * 2000,
        b'{"a":' * 2000,
        b'"\\ud800"',
        b'{"\\udfff": 1}',
        b'"\x01"',
        b"{} {}",
        b"'a'",
    ],
)
def test_unreadable_bodies(raw: bytes) -> None:
    with pytest.raises(Malformed):
        parse_json(raw)


def test_nul_is_readable_but_cannot_be_stored() -> None:
    for raw in (b'"\\u0000"', b'{"a\\u0000": 1}', b'[{"a": ["\\u0000"]}]'):
        with pytest.raises(InvalidConfig):
            parse_json(raw)
    assert parse_json(b'"\\\\u0000"') == "\\u0000"


def test_depth() -> None:
    def nested(depth: int) -> bytes:
        return b"[" * depth + b"]" * depth

    parse_json(nested(DEEPEST))
    with pytest.raises(Malformed):
        parse_json(nested(DEEPEST + 1))
    # many, but flat
    assert len(parse_json(b"[" + b",".join([b"{}"] * 1000) + b"]")) == 1000


def test_characters_beyond_the_basic_plane() -> None:
    assert parse_json(b'"\\ud83d\\ude00"') == "\U0001f600"


@given(st.binary(max_size=60))
def test_any_bytes_parse_or_are_refused(raw: bytes) -> None:
    with suppress(Malformed, InvalidConfig):
        parse_json(raw)


def test_messages_are_flattened_with_near_names() -> None:
    nested = {
        "job": {"job_priorty": ["Unknown field."], "job_timeout_s": ["Not a number."]},
        "labels": {0: {"x": ["bad"]}},
        "_schema": ["Invalid input type."],
    }
    assert flatten(nested, ReplicaCreate()) == {
        "job.job_priorty": ["Unknown field. Did you mean job_priority?"],
        "job.job_timeout_s": ["Not a number."],
        "labels.0.x": ["bad"],
        "body": ["Invalid input type."],
    }
