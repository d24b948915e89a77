"""Pitfall 27: a variable can be code, so names are allowed one by one."""

from __future__ import annotations

import pytest

from app.domain.environment import ADMIN_ONLY, check_environment

ALLOWED = ("HF_TOKEN", "MOCK_*")
CODE = [
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "DYLD_INSERT_LIBRARIES",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "BASH_ENV",
    "ENV",
    "IFS",
    "PATH",
    "GCONV_PATH",
    "GLIBC_TUNABLES",
    "HOSTLER_ENGINE_KEY",
    "HOSTLER_DATABASE_URL",
]


@pytest.mark.parametrize("name", ["HF_TOKEN", "MOCK_", "MOCK_ANY_THING", "CUDA_VISIBLE_DEVICES", "VLLM_PORT"])
def test_what_the_engine_lists_anybody_may_set(name: str) -> None:
    assert check_environment({name: "x"}, ALLOWED, admin=False) == {}


@pytest.mark.parametrize("name", [*CODE, "HF_TOKEN2", "mock_x", "OTHER"])
def test_what_it_does_not_list_only_an_admin_may(name: str) -> None:
    [message] = check_environment({name: "x"}, ALLOWED, admin=False)[f"environment.{name}"]
    assert "admin" in message
    assert "HF_TOKEN, MOCK_*" in message
    assert check_environment({name: "x"}, ALLOWED, admin=True) == {}


@pytest.mark.parametrize("name", CODE)
def test_what_is_code_stays_the_admins_even_where_an_engine_lists_it(name: str) -> None:
    assert check_environment({name: "x"}, [*ALLOWED, name, "*"], admin=False) != {}


@pytest.mark.parametrize("name", ["", "1X", "A-B", "A B", "A=B", "Ä", "A\n", "A\0"])
def test_what_is_no_name_nobody_may_set(name: str) -> None:
    assert check_environment({name: "x"}, [name, "*"], admin=True) != {}


def test_the_mark_is_ours_and_nul_is_nobodys() -> None:
    assert "environment.HOSTLER_MARK" in check_environment({"HOSTLER_MARK": "x"}, ["*"], admin=True)
    assert "environment.HF_TOKEN" in check_environment({"HF_TOKEN": "a\0b"}, ALLOWED, admin=True)


@pytest.mark.parametrize("value", ["$(reboot)", "`reboot`", "a'b\"c", "two\nlines", "; rm -rf /", "", "ü"])
def test_values_are_never_code(value: str) -> None:
    assert check_environment({"HF_TOKEN": value}, ALLOWED, admin=False) == {}


def test_every_problem_is_named_at_once() -> None:
    assert len(check_environment({"PATH": "x", "A-B": "x", "HF_TOKEN": "x"}, ALLOWED, admin=False)) == 2
    assert "PATH" in ADMIN_ONLY
