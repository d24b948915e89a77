"""What an engine wrote: lines of ``log.1`` and ``log``, or the bytes from a place on, also while they are rotated."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

from workers.backends.base import LogPart

BLOCK_BYTES = 65536
#: Bytes before a place by which it is known again: a number of a file alone is soon given to another one.
KNOWN_BYTES = 4096
#: Looks at a folder that is rotated at each of them.
OPEN_TRIES = 5
_PLACE = re.compile(r"([0-9]{1,20})-([0-9]{1,18})-([0-9a-f]{8})", re.ASCII)


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
                    yield as_text(rest)
                    rest = b""
        if rest:
            yield as_text(rest)
    finally:
        for file in files:
            file.close()


def read_part(folder: Path, place: str, limit: int) -> LogPart:
    """At most ``limit`` bytes from ``place`` on: a file's number, an offset, and a sum of what is before it there.

    A place that is not found again is one whose file was rotated away: then from the oldest byte kept, with a gap.
    """
    files = _open(folder)
    try:
        if not files:
            return LogPart(b"", place)
        found = _found_again(files, place)
        ahead = files if found is None else files[found:]
        data = b""
        for file in ahead:
            if found is None or file is not ahead[0]:
                file.seek(0)
            data += file.read(limit - len(data))
            if len(data) == limit:
                break
        return LogPart(data, _place(file), gap=bool(place) and found is None)
    finally:
        for file in files:
            file.close()


def tail_place(folder: Path, lines: int) -> str:
    """The place for ``read_part`` before the last ``lines`` lines; empty while nothing was written."""
    files = _open(folder)
    try:
        if not files:
            return ""
        _seek_tail(files, lines)
        ahead = [file for file in files if file.tell() < os.fstat(file.fileno()).st_size]
        return _place((ahead or files[-1:])[0])
    finally:
        for file in files:
            file.close()


def as_lines(data: bytes) -> list[str]:
    """The lines of some output, without their ends."""
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return [as_text(line) for line in lines]


def as_text(line: bytes) -> str:
    """One line, without its end, whatever was in it."""
    return line.rstrip(b"\r\n").decode("utf-8", "replace")


def _found_again(files: list[BinaryIO], place: str) -> int | None:
    """Which of the files the place is in; that one is left positioned there."""
    if not _PLACE.fullmatch(place):
        return None
    inode, offset, _ = place.split("-")
    for number, file in enumerate(files):
        seen = os.fstat(file.fileno())
        if seen.st_ino == int(inode) and seen.st_size >= int(offset):
            file.seek(int(offset))
            if _place(file) == place:
                return number
    return None


def _place(file: BinaryIO) -> str:
    offset = file.tell()
    file.seek(max(0, offset - KNOWN_BYTES))
    before = file.read(offset - file.tell())
    return f"{os.fstat(file.fileno()).st_ino}-{offset}-{crc32(before):08x}"


def _open(folder: Path) -> list[BinaryIO]:
    """Oldest first, without empty ones. Looked at again when it was rotated meanwhile: twice would mix up the order."""
    for _ in range(OPEN_TRIES):
        found = _open_once(folder)
        if not found or _is_newest(found[-1], folder):
            break
        for file in found:
            file.close()
    else:
        found = _open_once(folder)
    for file in [file for file in found if os.fstat(file.fileno()).st_size == 0]:
        found.remove(file)  # just rotated: the last line is in the other one
        file.close()
    return found


def _open_once(folder: Path) -> list[BinaryIO]:
    """The newer one is opened first: a rotation in between then shows one file twice, and loses none."""
    found: list[BinaryIO] = []
    for name in ("log", "log.1"):
        try:
            found.insert(0, open(folder / name, "rb"))  # noqa: SIM115 - who asked for them closes them
        except FileNotFoundError:
            continue
    if len(found) == 2 and os.path.sameopenfile(found[0].fileno(), found[1].fileno()):
        found.pop(0).close()
    return found


def _is_newest(file: BinaryIO, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(folder / "log"))
    except FileNotFoundError:
        # between a rotation's two steps the newest is log.1
        return True


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
