"""Folders that another host has under other names."""

from __future__ import annotations

from collections.abc import Mapping


def map_path(value: str, path_map: Mapping[str, str]) -> str:
    """``value`` with its beginning replaced, if that is one of the folders; the longest one wins."""
    for folder in sorted(path_map, key=len, reverse=True):
        there, here = path_map[folder].rstrip("/"), folder.rstrip("/")
        if value.startswith(f"{here}/") or (here and value == here):
            return (there + value[len(here) :]) or "/"
    return value
