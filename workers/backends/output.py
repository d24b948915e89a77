"""What an engine wrote: the last lines of ``log.1`` and ``log``, also while they are written and rotated."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

BLOCK_BYTES = 65536


def read_output(folder: Path, tail: int | None) -> Iterator[str]:
    """Lines without their line ends, oldest first: the last ``tail``, or all that is kept."""
    files = _open(folder)
    try:
        if tail is not None:
            _seek_tail(files, tail)
        rest = b""
        for file in files:
            for line in file:
                rest += line
                if rest.endswith(b"\n"):
                    yield _text(rest)
                    rest = b""
        if rest:
            yield _text(rest)
    finally:
        for file in files:
            file.close()


def _open(folder: Path) -> list[BinaryIO]:
    """Oldest first. The newer one is opened first: a rotation in between then shows one file twice, and loses none."""
    found: list[BinaryIO] = []
    for name in ("log", "log.1"):
        try:
            found.insert(0, open(folder / name, "rb"))  # noqa: SIM115 - read_output closes them
        except FileNotFoundError:
            continue
    if len(found) == 2 and os.path.sameopenfile(found[0].fileno(), found[1].fileno()):
        found.pop(0).close()
    for file in [file for file in found if os.fstat(file.fileno()).st_size == 0]:
        found.remove(file)  # just rotated: the last line is in the other one
        file.close()
    return found


def _seek_tail(files: list[BinaryIO], tail: int) -> None:
    """Position the files so that exactly the last ``tail`` lines are ahead."""
    missing = tail
    for place, file in reversed(list(enumerate(files))):
        missing = _seek_lines(file, missing, counts_open_end=file is files[-1])
        if missing <= 0:
            for older in files[:place]:
                older.seek(0, os.SEEK_END)
            return


def _seek_lines(file: BinaryIO, wanted: int, *, counts_open_end: bool) -> int:
    """Go back ``wanted`` lines from the end; how many more are needed from the file before."""
    position = end = file.seek(0, os.SEEK_END)
    if wanted <= 0:
        return 0
    if counts_open_end and end:
        file.seek(end - 1)
        wanted += file.read(1) == b"\n"
    while position:
        start = max(0, position - BLOCK_BYTES)
        file.seek(start)
        block = file.read(position - start)
        found = block.count(b"\n")
        if found >= wanted:
            cut = len(block)
            for _ in range(wanted):
                cut = block.rindex(b"\n", 0, cut)
            file.seek(start + cut + 1)
            return 0
        wanted -= found
        position = start
    file.seek(0)
    return wanted


def _text(line: bytes) -> str:
    return line.rstrip(b"\r\n").decode("utf-8", "replace")
