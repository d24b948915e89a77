"""Trap 12, the pure part: what is shown of a request."""

from __future__ import annotations

import pytest

from app.domain.masking import MASK, mask, mask_environment, name_matches, sounds_secret


@pytest.mark.parametrize(
    "name",
    [
        "key",
        "api_key",
        "API-KEY",
        "HF_TOKEN",
        "token",
        "password",
        "db_passwd",
        "client_secret",
        "Authorization",
        "auth",
    ],
)
def test_names_that_sound_secret(name: str) -> None:
    assert sounds_secret(name)


@pytest.mark.parametrize("name", ["max_tokens", "tokens_per_s", "keyboard", "monkey", "author", "keys_of"])
def test_names_that_do_not(name: str) -> None:
    assert not sounds_secret(name)


def test_secrets_are_masked_at_any_depth_and_nothing_else_is() -> None:
    given = {"a": [{"api_key": "x", "n": 1}, ("y",)], "token": {"deep": "x"}, "password": "", "max_tokens": 5}
    assert mask(given) == {"a": [{"api_key": MASK, "n": 1}, ["y"]], "token": MASK, "password": "", "max_tokens": 5}
    assert given["token"] == {"deep": "x"}, "the original is left alone"


def test_environment_values_are_masked_unless_public() -> None:
    shown = mask_environment({"TZ": "UTC", "OMP_NUM_THREADS": "4", "HF_TOKEN": "s"}, ["TZ", "OMP_*"])
    assert shown == {"TZ": "UTC", "OMP_NUM_THREADS": "4", "HF_TOKEN": MASK}


def test_patterns_are_exact_or_prefixes() -> None:
    assert name_matches("LD_PRELOAD", ["LD_*"])
    assert name_matches("ENV", ["ENV"])
    assert not name_matches("ENVIRON", ["ENV"])
    assert not name_matches("XLD_PRELOAD", ["LD_*"])
