"""HAProxy's configuration as text: quoting, the problems' bodies, and what must never stand in it."""

from __future__ import annotations

import json
import re

import pytest

from app.gateway.config import Options, render
from app.gateway.config.problems import BY_STATUS, body, http_error, refuse
from app.gateway.config.text import literal, quoted

OPTIONS = Options(host="127.0.0.1", port=8080)


@pytest.mark.parametrize("value", ["a", "a b", "it's", "''", '"', "$HOME", "\\", "#", "100%"])
def test_what_is_quoted_is_one_word_that_means_itself(value: str) -> None:
    parts = re.findall(r"'([^']*)'|\"(')\"", quoted(value))
    assert "".join(one + other for one, other in parts) == value


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\0b"])
def test_no_value_becomes_a_line_of_its_own(value: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        quoted(value)


def test_percent_signs_stand_for_themselves() -> None:
    assert literal("100% of %[x]") == "100%% of %%[x]"


@pytest.mark.parametrize("status,error", BY_STATUS.items())
def test_a_problem_is_json_once_haproxy_filled_it_in(status: int, error: type) -> None:
    text = re.sub(r"%\[[^]]*\]", "filled", body(error, status)).replace("%%", "%")
    found = json.loads(text)
    assert found["status"] == status
    assert found["source"] == "gateway"
    assert (found["instance"], found["request_id"]) == ("filled", "filled")
    assert found["detail"] == error.__doc__.strip() == found["error"]  # type: ignore[union-attr]


def test_who_may_try_again_is_told_when() -> None:
    for error in BY_STATUS.values():
        assert ("Retry-After" in refuse(error)) == error.retryable
        assert ("Retry-After" in http_error(error)) == error.retryable


def test_the_same_options_make_the_same_file() -> None:
    assert render(OPTIONS) == render(OPTIONS)
    assert render(OPTIONS) != render(Options(host="::1", port=8080))


def test_addresses_of_both_families_are_written_as_haproxy_reads_them() -> None:
    for host, written in (("::1", "'ipv6@::1:8080'"), ("0.0.0.0", "'0.0.0.0:8080'"), ("::", "'ipv6@:::8080'")):
        assert f"bind {written} " in render(Options(host=host, port=8080))
    secured = render(Options(host="127.0.0.1", port=8080, certificate="tls.pem"))
    assert re.search(r"bind '127\.0\.0\.1:8080' .*ssl crt tls\.pem alpn h2,http/1\.1", secured)


def test_a_host_cannot_add_to_the_configuration() -> None:
    text = render(Options(host="127.0.0.1'\"x", port=1))
    [line] = [line for line in text.splitlines() if line.strip().startswith("bind") and "127.0.0.1" in line]
    assert line.strip().startswith("bind " + quoted("127.0.0.1'\"x:1") + " ")


def test_nothing_may_change_what_is_checked_between_two_stacks() -> None:
    text = render(OPTIONS)
    assert "option accept-invalid-http-request" not in text, "leniency is how requests are smuggled"
    assert "noreuseport" in text
    for line in text.splitlines():
        assert "/" not in line.split("unix@")[-1].split(" ")[0] or "../run/" in line or "unix@" not in line
