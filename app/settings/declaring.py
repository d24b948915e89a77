"""How a setting is declared: what it is by default, what it may be, how a variable's text becomes its value."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from dataclasses import Field, dataclass, field
from pathlib import Path
from typing import Any

#: What a pool's name looks like.
POOL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"


class BadSetting(ValueError):
    """A setting cannot be used. The message names the variable, what is wrong and what would do."""


@dataclass(frozen=True)
class _Limits:
    """What a value may be: a number ``within`` two others, one of some words, or a text of a form."""

    within: tuple[float, float] | None = None
    one_of: tuple[str, ...] = ()
    form: str = ""
    #: what such a text is, for people
    such_as: str = ""
    #: what reads such a text, and raises ValueError for another
    read_by: Callable[[str], object] | None = None

    def refuse(self, value: Any) -> str:
        """Why ``value`` cannot be; empty when it can."""
        # not the other way round: NaN is neither above nor below
        if self.within is not None and not self.within[0] <= value <= self.within[1]:
            return f"not from {self.within[0]:g} to {self.within[1]:g}"
        if self.one_of and value not in self.one_of:
            return f"none of {', '.join(self.one_of)}"
        if self.form and not re.fullmatch(self.form, value):
            return f"not {self.such_as}"
        if self.read_by is not None:
            try:
                self.read_by(value)
            except ValueError as error:
                return str(error).lower()
        return ""


def setting(
    default: Any,
    doc: str,
    *,
    secret: bool = False,
    also: str = "",
    also_read: Callable[[str], str] = str,
    **limits: Any,
) -> Any:
    """A field of ``Settings``.

    ``also``: another variable, read where ours is not set; ``also_read`` makes its value ours.
    """
    meta = {"doc": doc, "secret": secret, "limits": _Limits(**limits), "also": also, "also_read": also_read}
    return field(default=default, metadata=meta, repr=not secret)


def env_name(setting: str) -> str:
    """``max_wait_s`` -> ``HOSTLER_MAX_WAIT_S``."""
    return f"HOSTLER_{setting.upper()}"


def check(item: Field[Any], value: Any, variable: str) -> None:
    """Raises BadSetting, naming ``variable``, for a value that the field may not have; its default always may be."""
    limits: _Limits = item.metadata["limits"]
    why = "" if value == item.default else limits.refuse(value)
    if why:
        shown = "" if item.metadata["secret"] else f"={value!r}"
        example = f"; an example: {_example(item.default)}" if limits.within else ""
        raise BadSetting(f"{variable}{shown}: {why}{example}")


def parse(variable: str, raw: str, default: Any) -> Any:
    """The value that ``raw`` means, of the kind that ``default`` is. Raises BadSetting, naming ``variable``."""
    try:
        if isinstance(default, bool):
            return _parse_bool(raw)
        if isinstance(default, int):
            return int(raw)
        if isinstance(default, float):
            return float(raw)
        if isinstance(default, tuple):
            return _parse_range(raw)
        if isinstance(default, Path):
            return Path(raw)
    except ValueError as error:
        raise BadSetting(f"{variable}={raw!r}: {error}; an example: {_example(default)}") from error
    return raw


def _parse_bool(raw: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if raw.lower() not in words:
        raise ValueError("neither true nor false")
    return words[raw.lower()]


def _parse_range(raw: str) -> tuple[int, int]:
    first, _, last = raw.partition("-")
    low, high = int(first), int(last or first)
    if not 1 <= low <= high <= 65535:
        raise ValueError("not a range of ports")
    return low, high


def _example(default: Any) -> str:
    return f"{default[0]}-{default[1]}" if isinstance(default, tuple) else str(default).lower()


def command_line(text: str) -> None:
    """Raises ValueError for what is no command."""
    if not shlex.split(text):
        raise ValueError("no command")


def llama_server(text: str) -> None:
    """Raises ValueError for what does not start llama.cpp's server."""
    command_line(text)
    if os.path.basename(shlex.split(text)[0]) == "llama-cli":
        raise ValueError("llama-cli serves nothing; name llama-server, which is built beside it")


def level_name(word: str) -> str:
    """Python's names of levels, in whatever case, as ours."""
    return {"warn": "warning", "critical": "error", "fatal": "error"}.get(word.lower(), word.lower())


def absolute(path: Path) -> Path:
    """Seen from where we stand; no path stays none."""
    return path if path == Path() else Path(os.path.abspath(path.expanduser()))


def placed(command: str) -> str:
    """A command line whose program is written as a path, from where we stand: it is run from elsewhere."""
    program, *rest = shlex.split(command)
    if os.sep not in program:
        return command
    return shlex.join([os.path.abspath(os.path.expanduser(program)), *rest])
