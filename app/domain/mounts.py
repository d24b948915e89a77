"""Mounts of containers: what a path must look like before a daemon is told of it, and what a request may ask for.

Podman joins the parts of a mount to one text by commas, and reads it again: a path that holds one could say anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

#: The end of everything, for JSON Schema and Python alike: ``$`` is also before a last line feed.
_END = r"(?![\s\S])"
#: An absolute path in normal form, of characters that no daemon reads as anything else.
PLAIN_PATH = rf"^(?:/(?!\.\.?(?:/|{_END}))[A-Za-z0-9._+@%~-]+)+{_END}"
_PLAIN = re.compile(PLAIN_PATH)
#: What would end a path, or begin something else, in what a daemon reads.
_SEPARATES = re.compile(r"[,=:\"'\\\x00-\x1f\x7f-\x9f]")
#: Where images have their programs and the kernel its own.
_PROGRAMS = (
    "/app",
    "/bin",
    "/dev",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/opt",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
)


def is_plain(path: str) -> bool:
    """Whether the path may be a request's."""
    return _PLAIN.match(path) is not None


def is_safe(path: str) -> bool:
    """Whether no daemon reads more than a path in it: for folders of ours, and for where links lead."""
    return _SEPARATES.search(path) is None


def overlaps(one: str, other: str) -> bool:
    """Whether one of them is the other, or lies in it."""
    return PurePosixPath(one).is_relative_to(other) or PurePosixPath(other).is_relative_to(one)


def refused_mounts(
    own: Sequence[Mapping[str, Any]],
    pool: Mapping[str, Any],
    granted: Mapping[str, Any],
    allowed: Sequence[Mapping[str, Any]],
    *,
    admin: bool,
    programs: Sequence[str] = (),
) -> dict[str, str]:
    """Message per mount of a request, by ``mounts.N``, that it may not have, as far as paths alone tell.

    ``pool``: the pool's options; ``granted``: those that an admin set. Their own mounts may be asked for again.
    ``programs``: paths in the image of what is run there, as far as they are known.
    """
    given = [*pool.get("mounts", ()), *granted.get("mounts", ())]
    maps = [*pool.get("path_map", {}).values(), *granted.get("path_map", {}).values()]
    refused = {}
    for place, mount in enumerate(own):
        told = "" if mount in given else _not_allowed(mount, allowed)
        if not told and not admin and mount not in given:
            told = _covers(mount, given, maps, programs)
        if told:
            refused[f"mounts.{place}"] = told
    return refused


def _not_allowed(mount: Mapping[str, Any], allowed: Sequence[Mapping[str, Any]]) -> str:
    over = [one for one in allowed if PurePosixPath(mount["source"]).is_relative_to(one["source"])]
    if not over:
        return f"{mount['source']} is below no folder of the option allowed_mounts."
    if not mount.get("read_only", True) and all(one.get("read_only", True) for one in over):
        return f"{mount['source']} may be mounted only for reading; the option allowed_mounts says so."
    return ""


def _covers(
    mount: Mapping[str, Any], given: Sequence[Mapping[str, Any]], maps: Sequence[str], programs: Sequence[str]
) -> str:
    source, target = mount["source"], mount.get("target", mount["source"])
    for one in given:
        over = one.get("target", one["source"])
        if overlaps(target, over) and not _same_tree(source, target, one["source"], over):
            return f"Target {target} covers {over}, which the pool mounts; only role admin may."
    for over in maps:
        if overlaps(target, over):
            return f"Target {target} covers {over}, a path of the option path_map; only role admin may."
    for over in programs:
        if source != target and PurePosixPath(over).is_relative_to(target):
            return f"Target {target} covers {over}, the program that runs in the image; only role admin may."
    if source != target and any(overlaps(target, over) for over in _PROGRAMS):
        return f"Target {target} covers the image's own programs; only role admin may."
    return ""


def _same_tree(source: str, target: str, other_source: str, other_target: str) -> bool:
    """Whether both show the same of the host where they meet."""
    if PurePosixPath(target).is_relative_to(other_target):
        return PurePosixPath(source) == other_source / PurePosixPath(target).relative_to(other_target)
    return PurePosixPath(other_source) == source / PurePosixPath(other_target).relative_to(target)
