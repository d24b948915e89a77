"""Reading YAML as the server reads recipes: words as YAML 1.2 has them, plain values only, no name twice.

``on`` and ``12:30`` are texts, anchors, aliases and tags are refused. What is written here is read here as it was.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable
from typing import Any

import yaml

_LONGEST_INTEGER = 18
_BOOL, _INT, _FLOAT, _NULL, _TEXT = (f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float", "null", "str"))


class Unreadable(ValueError):
    """The text is no YAML that is taken. The message says where and why."""


def read_documents(text: str) -> list[Any]:
    """The values of all documents, of JSON's kinds only. Raises Unreadable."""
    try:
        return list(yaml.load_all(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = " ".join(f"{error.context or ''} {error.problem or ''}".split())
        raise Unreadable(f"line {mark.line + 1}: {words}" if mark is not None else words) from error
    except (yaml.YAMLError, ValueError) as error:
        raise Unreadable(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise Unreadable("it nests too deep") from error


def written_document(value: Any) -> str:
    """YAML that ``read_documents``, and who reads YAML 1.1, takes for ``value``."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


class _Loader(yaml.SafeLoader):
    #: filled below; not those of YAML 1.1, which the class above has
    yaml_implicit_resolvers: dict[str, Any] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise yaml.MarkedYAMLError(problem="anchors and aliases are not taken", problem_mark=event.start_mark)
        if event.tag is not None:
            raise yaml.MarkedYAMLError(problem="tags (!) are not taken", problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != _TEXT:
                raise _wrong(key, "a name must be a text")
            if key.value in seen:
                raise _wrong(key, f"{key.value[:100]!r} is there twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep=True)

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


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _wrong(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


for _tag, _form, _first in (
    (_NULL, r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (_BOOL, r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (_INT, r"[-+]?[0-9]+", list("-+0123456789")),
    (_FLOAT, r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_form})\Z"), _first)
    # beside those of YAML 1.1: a text that either takes for something else stands in quotes
    _Dumper.add_implicit_resolver(_tag, re.compile(rf"(?:{_form})\Z"), _first)
_Loader.yaml_constructors = {
    _NULL: yaml.SafeLoader.construct_yaml_null,
    _BOOL: yaml.SafeLoader.construct_yaml_bool,
    _INT: _Loader.construct_whole,
    _FLOAT: _Loader.construct_number,
    _TEXT: _Loader.construct_text,
    "tag:yaml.org,2002:seq": yaml.SafeLoader.construct_yaml_seq,
    "tag:yaml.org,2002:map": yaml.SafeLoader.construct_yaml_map,
}
