"""The GGUF files of a folder, and whether each can be a model at all (its header only; the engine judges the rest)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

_HEADER = struct.Struct("<4sIQQ")
_VERSIONS = (2, 3)


@dataclass(frozen=True)
class ModelFile:
    """``problem`` is empty for a file that can be tried, else says what is wrong with it and what to do."""

    name: str
    path: Path
    size_bytes: int
    problem: str = ""


def scan_models(folder: Path | str) -> list[ModelFile]:
    """Every ``*.gguf`` of ``folder``, named by its stem, in order of names. A folder that is not there has none.

    A file that goes away meanwhile is left out. Hidden files are skipped: they are half-written.
    """
    found = []
    for path in sorted(Path(folder).glob("*.gguf")):
        if path.name.startswith(".") or not path.is_file():
            continue
        try:
            found.append(ModelFile(path.stem, path.absolute(), path.stat().st_size, header_problem(path)))
        except FileNotFoundError:
            continue
    return found


def header_problem(path: Path) -> str:
    """Empty when ``path`` starts like a GGUF file that holds tensors. Raises FileNotFoundError."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
    except PermissionError:
        return "cannot be read by this user; check its permissions"
    if len(head) < _HEADER.size:
        return f"is only {len(head)} bytes long; copy it again"
    magic, version, tensors, _ = _HEADER.unpack(head)
    if magic != b"GGUF":
        return "does not start with GGUF; it is another format or damaged"
    if version not in _VERSIONS:
        return f"has GGUF version {version}; known are {', '.join(map(str, _VERSIONS))}; convert it again"
    if not tensors:
        return "holds no tensors; it is a vocabulary or damaged"
    return ""
