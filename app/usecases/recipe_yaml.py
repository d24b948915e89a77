"""Reading YAML that somebody else wrote: plain values only, bounded in size, depth and number, no name twice."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable
from typing import Any

import yaml

#: Bytes of a file, levels of nesting, and values in all.
LARGEST = 64 * 1024
DEEPEST = 16
MOST_VALUES = 5000
_LONGEST_INTEGER = 18
_BOOL, _INT, _FLOAT, _NULL = (f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float", "null"))


class Unreadable(ValueError):
    """The text is no YAML that is taken. The message says where and why."""


def read_yaml(raw: bytes) -> Any:
    """The value of a YAML document, of JSON's kinds only. Raises Unreadable.

    Aliases are refused: a few lines of them are gigabytes. Words are read as YAML 1.2 has them: ``on`` and ``12:30``
    are texts.
    """
    if len(raw) > LARGEST:
        raise Unreadable(f"it is larger than {LARGEST // 1024} KiB")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable(f"it is not UTF-8 (byte {error.start})") from error
    try:
        _check_shape(text)
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        raise Unreadable(_told(error)) from error
    except (yaml.YAMLError, ValueError) as error:
        raise Unreadable(" ".join(str(error).split())[:300]) from error


#: libyaml's parser where the wheel has it: ten times as fast, and the same otherwise.
_SAFE = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SAFE):  # type: ignore[misc, valid-type]
    """Only null, true, false, numbers and texts; integers that JSON and Postgres can hold."""

    #: filled below; not those of YAML 1.1, which the class above has
    yaml_implicit_resolvers: dict[str, Any] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                raise _wrong(key, "a name must be a text")
            if key.value in seen:
                raise _wrong(key, f"{key.value[:100]!r} is there twice")
            seen.add(key.value)
        found: dict[Hashable, Any] = super().construct_mapping(node, deep=True)
        return found

    def construct_text(self, node: yaml.ScalarNode) -> str:
        value = str(self.construct_scalar(node))
        if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
            raise _wrong(node, "a text must not hold NUL or half a surrogate pair")
        return value

    def construct_whole(self, node: yaml.ScalarNode) -> int:
        if len(node.value.lstrip("+-")) > _LONGEST_INTEGER:
            raise _wrong(node, f"a whole number has up to {_LONGEST_INTEGER} digits")
        return int(node.value)

    def construct_number(self, node: yaml.ScalarNode) -> float:
        value = float(node.value)
        if math.isinf(value):
            raise _wrong(node, "this number is too large")
        return value


def _check_shape(text: str) -> None:
    """Before anything is built: anchors, aliases, depth and number, by the events alone."""
    depth = values = 0
    for event in yaml.parse(text, Loader=_SAFE):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise yaml.MarkedYAMLError(problem="anchors and aliases are not taken", problem_mark=event.start_mark)
        if getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(problem="tags (!) are not taken", problem_mark=event.start_mark)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST:
                raise yaml.MarkedYAMLError(problem=f"nested deeper than {DEEPEST}", problem_mark=event.start_mark)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if isinstance(event, yaml.NodeEvent):
            values += 1
            if values > MOST_VALUES:
                raise yaml.MarkedYAMLError(problem=f"more than {MOST_VALUES} values", problem_mark=event.start_mark)


def _wrong(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _told(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    words = " ".join(f"{error.context or ''} {error.problem or ''}".split())[:300]
    return f"line {mark.line + 1}: {words}" if mark is not None else words


def _teach() -> None:
    for tag, form, first in (
        (_NULL, r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        (_BOOL, r"true|True|TRUE|false|False|FALSE", list("tTfF")),
        (_INT, r"[-+]?[0-9]+", list("-+0123456789")),
        (_FLOAT, r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ):
        _Loader.add_implicit_resolver(tag, re.compile(rf"(?:{form})\Z"), first)
    _Loader.yaml_constructors = {
        _NULL: yaml.SafeLoader.construct_yaml_null,
        _BOOL: yaml.SafeLoader.construct_yaml_bool,
        _INT: _Loader.construct_whole,
        _FLOAT: _Loader.construct_number,
        "tag:yaml.org,2002:str": _Loader.construct_text,
        "tag:yaml.org,2002:seq": yaml.SafeLoader.construct_yaml_seq,
        "tag:yaml.org,2002:map": yaml.SafeLoader.construct_yaml_map,
    }


_teach()
