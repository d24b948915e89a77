"""Prometheus text of several servers as one page: each family once, each sample with the labels of who said it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

#: The media type of what ``joined`` makes.
MIMETYPE = "text/plain; version=0.0.4; charset=utf-8"

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
# no part of it may be read in two ways: a page is written by who knows whom
_LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\.)*+"'
_SAMPLE = re.compile(
    rf"({_NAME})[ \t]*+(?:\{{[ \t]*+((?:{_LABEL}[ \t]*+(?:,[ \t]*+)?+)*+)\}})?[ \t]*+(\S++)(?:[ \t]++(-?\d++))?[ \t]*+"
)
_ONE_LABEL = re.compile(r"([a-zA-Z_][a-zA-Z0-9_]*)(=\"(?:[^\"\\\n]|\\.)*+\")")
_ABOUT = re.compile(rf"#[ \t]++(HELP|TYPE)[ \t]++({_NAME})(?:[ \t]++(.*))?")
_NUMBER = re.compile(r"[+-]?(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][+-]?\d++)?|[+-]?Inf|NaN", re.IGNORECASE)
#: What the samples of a family may be called beside its own name, by its type.
_PARTS = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}
_KINDS = {*_PARTS, "counter", "gauge", "untyped"}


@dataclass
class _Family:
    name: str
    help: str = ""
    kind: str = ""
    samples: list[str] = field(default_factory=list)


def joined(pages: Iterable[tuple[Mapping[str, str], str]]) -> str:
    """One page of ``pages``, each with the labels that its samples get.

    A label that a sample has already stays, as ``exported_<name>``, as Prometheus itself does. What is no sample is
    left out. Of a family that two pages describe differently the first description stands.
    """
    families: dict[str, _Family] = {}
    for labels, page in pages:
        _add(families, labels, page)
    return "".join(_shown(family) for family in families.values() if family.samples)


def escaped(value: str) -> str:
    """``value`` as it stands between a label's quotes."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def sample(name: str, labels: Mapping[str, str], value: str) -> str:
    """One line of a page."""
    return f"{name}{{{','.join(_written(labels))}}} {value}\n"


def _add(families: dict[str, _Family], labels: Mapping[str, str], page: str) -> None:
    #: of this page alone: what another said of a name does not say how this one's samples belong together
    kinds: dict[str, str] = {}
    added = _written(labels)
    for line in page.split("\n"):
        about = _ABOUT.fullmatch(line.rstrip("\r"))
        if about is not None:
            what, name, said = about.groups()
            _describe(families.setdefault(name, _Family(name)), what, (said or "").strip(), kinds)
            continue
        found = _SAMPLE.fullmatch(line.rstrip("\r"))
        if found is None or not _NUMBER.fullmatch(found[3]):
            continue
        name = _family_of(found[1], kinds)
        families.setdefault(name, _Family(name)).samples.append(_labelled(found, labels, added))


def _describe(family: _Family, what: str, said: str, kinds: dict[str, str]) -> None:
    if what == "HELP":
        family.help = family.help or said
    elif said in _KINDS:
        kinds[family.name] = said
        family.kind = family.kind or said


def _family_of(name: str, kinds: Mapping[str, str]) -> str:
    if name in kinds:
        return name
    for kind, parts in _PARTS.items():
        for part in parts:
            base = name.removesuffix(part)
            if base != name and kinds.get(base) == kind:
                return base
    return name


def _labelled(found: re.Match[str], labels: Mapping[str, str], added: Sequence[str]) -> str:
    said = dict(_ONE_LABEL.findall(found[2] or ""))
    own = []
    for name, value in said.items():
        shown = name
        while shown in labels or (shown != name and shown in said):
            shown = f"exported_{shown}"
        own.append(f"{shown}{value}")
    at = f" {found[4]}" if found[4] else ""
    return f"{found[1]}{{{','.join([*own, *added])}}} {found[3]}{at}\n"


def _written(labels: Mapping[str, str]) -> list[str]:
    return [f'{name}="{escaped(value)}"' for name, value in labels.items()]


def _shown(family: _Family) -> str:
    lines = [f"# HELP {family.name} {family.help}\n"] if family.help else []
    if family.kind:
        lines.append(f"# TYPE {family.name} {family.kind}\n")
    return "".join([*lines, *family.samples])
