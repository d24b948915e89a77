from __future__ import annotations

from pathlib import Path

import click
import pytest

from hostler.cli import parse


@pytest.mark.parametrize(
    "text,seconds",
    [("90", 90), ("90s", 90), ("0.5", 0.5), ("5m", 300), ("1h30m", 5400), ("2d", 172800), ("1m1.5s", 61.5)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse.Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", " ", "soon", "-5", "5x", "m", "1s1m", "1e3"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(click.BadParameter):
        parse.Duration().convert(text, None, None)


def test_numbers_are_written_without_empty_fractions() -> None:
    assert repr(parse.number(5.0)) == "5"
    assert repr(parse.number(0.5)) == "0.5"


def test_pairs_keep_everything_behind_the_first_equals() -> None:
    assert parse.pairs(["A=b=c", "B=", "A=last"], "--env") == {"A": "last", "B": ""}
    for bad in ("x", "=x", ""):
        with pytest.raises(click.BadParameter):
            parse.pairs([bad], "--env")


def test_settings_nest_and_keep_types() -> None:
    found = parse.settings(
        ["a.b=1", "a.c=true", 'a.d="1"', "e=text: x", "f=[1,2]", '{"a": {"b": 2}, "g": null}', "h=null"], "--config"
    )
    assert found == {"a": {"b": 2, "c": True, "d": "1"}, "e": "text: x", "f": [1, 2], "g": None, "h": None}


@pytest.mark.parametrize("bad", ["{", '{"a"}', "novalue"])
def test_bad_settings(bad: str) -> None:
    with pytest.raises(click.BadParameter):
        parse.settings([bad], "--config")


@pytest.mark.parametrize(
    "text, found",
    [
        ("model=qwen2", {"model": "qwen2"}),
        ("model=llama,type=chat", {"model": "llama", "type": "chat"}),
        ("gpus=2,share=0.5,fast=true,slow=false", {"gpus": 2, "share": 0.5, "fast": True, "slow": False}),
        ('gpus="2",fast="true"', {"gpus": "2", "fast": "true"}),
        ('a="x,y=z \\"q\\"",b=1', {"a": 'x,y=z "q"', "b": 1}),
        (
            "zip=007,void=null,list=[1],none=NaN,huge=1e999,empty=",
            {"zip": "007", "void": "null", "list": "[1]"} | {"none": "NaN", "huge": "1e999", "empty": ""},
        ),
        ("url=http://h:1/?q=a", {"url": "http://h:1/?q=a"}),
        ('{"model": "x", "gpus": 2}', {"model": "x", "gpus": 2}),
    ],
)
def test_capabilities(text: str, found: dict[str, object]) -> None:
    parsed = parse.capability(text, "--capability")
    assert parsed == found
    assert [type(value) for value in parsed.values()] == [type(value) for value in found.values()]


@pytest.mark.parametrize("bad", ["", "model", "=x", "a=1,", ",a=1", "a=1,a=2", 'a="x', 'a="x"y', "a=1,b", "{", "[1]"])
def test_what_is_no_capability(bad: str) -> None:
    with pytest.raises(click.BadParameter):
        parse.capability(bad, "--capability")


def test_merging_goes_dict_by_dict() -> None:
    assert parse.merge({"a": {"x": 1, "y": 1}, "b": 1}, {"a": {"y": 2}, "b": {"z": 3}}) == {
        "a": {"x": 1, "y": 2},
        "b": {"z": 3},
    }


@pytest.mark.parametrize("content", ["[1]", "text", "a: [", "\x00"])
def test_a_request_file_holds_an_object(tmp_path: Path, content: str) -> None:
    file = tmp_path / "request"
    file.write_text(content)
    with pytest.raises(click.BadParameter):
        parse.read_body(str(file))


def test_no_file_is_an_empty_request() -> None:
    assert parse.read_body(None) == {}


def test_changes_say_what_is_to_go() -> None:
    given = ["a=1-", "ssh.user-", "ssh.port=22", "gone-", '{"b": null}']
    assert parse.changes(given, "--option", parse.settings) == {
        "a": "1-", "ssh": {"user": None, "port": 22}, "gone": None, "b": None,
    }  # fmt: skip
    assert parse.changes(["a.b-", "c=d"], "--label", parse.pairs) == {"a.b": None, "c": "d"}
    for wrong in ("-", "--x-", "bare"):
        with pytest.raises(click.BadParameter):
            parse.changes([wrong], "--option", parse.settings)
