"""Secrets by reference: files of HOSTLER_SECRETS_DIR, read on the host and in the moment of a launch, kept nowhere."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.domain.recipe_schema import SECRET_FILE
from app.errors import InvalidConfig
from app.settings import Settings
from app.stack.layout import Layout
from app.usecases.inside_files import NotInside, is_ours, others_may_write, read_inside

LARGEST = 32 * 1024
_NAME = re.compile(SECRET_FILE)


def read_secrets(settings: Settings, references: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Values by environment name; an optional one without a file is left out.

    Raises InvalidConfig that says which file on which host, and never what is in it.
    """
    found = {}
    for name, reference in references.items():
        value = _read(settings, name, str(reference["file"]), optional=bool(reference.get("optional")))
        if value is not None:
            found[name] = value
    return found


def secret_values(settings: Settings) -> tuple[str, ...]:
    """Every line of this host's secrets that is long enough to be one, the longest first: what no log may show."""
    known = _values.get(settings.secrets_dir)
    if known is None or known.until < time.monotonic():
        known = _values[settings.secrets_dir] = _look(settings.secrets_dir, known)
    return known.values


@dataclass(frozen=True)
class _Values:
    """As last read, of files that looked so, and until when nobody need look again."""

    values: tuple[str, ...]
    signature: tuple[object, ...]
    until: float


_values: dict[Path, _Values] = {}
#: Logs are read line by line. An engine takes longer than this from the read of a secret to its first word.
_LOOK_S = 0.02
#: A shorter word would be masked in half of all lines.
_SHORTEST = 6
_MOST = 1000


def _look(folder: Path, known: _Values | None) -> _Values:
    files = _files(folder)
    signature = tuple((path, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns) for path, seen in files)
    if known is not None and known.signature == signature:
        return replace(known, until=time.monotonic() + _LOOK_S)
    found: set[str] = set()
    for path, _ in files:
        try:
            # also those that no launch would take: they may have been given out a moment ago
            text = read_inside(folder, path, LARGEST).raw.decode("utf-8", "replace")
        except (NotInside, OSError):
            continue
        found.update(line for line in text.splitlines() if len(line) >= _SHORTEST)
    return _Values(tuple(sorted(found, key=len, reverse=True)), signature, time.monotonic() + _LOOK_S)


def _files(folder: Path) -> list[tuple[Path, os.stat_result]]:
    try:
        names = sorted(os.listdir(folder))[:_MOST]
    except OSError:
        return []
    found = []
    for name in names:
        with suppress(OSError):
            found.append((folder / name, os.stat(folder / name)))
    return found


def _read(settings: Settings, name: str, file: str, *, optional: bool) -> str | None:
    folder = settings.secrets_dir
    path = folder / file
    where = f"the secret {name} (file {path} on {settings.node_name})"
    if not _NAME.match(file):
        raise InvalidConfig(f"{where}: a secret is named by a bare file name.")
    if os.path.realpath(folder) == os.path.realpath(Layout(settings.state_dir).secrets):
        raise InvalidConfig(f"{where}: HOSTLER_SECRETS_DIR must not be the folder of the stack's own secrets.")
    try:
        found = read_inside(folder, path, LARGEST)
        held = os.stat(folder)
    except FileNotFoundError:
        if optional:
            return None
        raise InvalidConfig(f"{where}: there is no such file. Put it there with mode 0600.") from None
    except NotInside as error:
        raise InvalidConfig(f"{where} {error}.") from error
    except OSError as error:
        raise InvalidConfig(f"{where} cannot be read: {error.strerror}.") from error
    if not is_ours(found.seen):
        owner = f"another user (uid {found.seen.st_uid})"
        raise InvalidConfig(f"{where} belongs to {owner}. chown it to whom Hostler runs as.")
    if found.seen.st_mode & 0o077:
        raise InvalidConfig(f"{where} is open to others. chmod 600 {path}")
    if not is_ours(held) or others_may_write(held):
        raise InvalidConfig(f"{where}: others may write the folder. chmod go-w {folder}")
    return _text(where, found.raw)


def _text(where: str, raw: bytes) -> str:
    if len(raw) > LARGEST:
        raise InvalidConfig(f"{where} is larger than {LARGEST // 1024} KiB.")
    try:
        # editors end a file with a line end, which is no part of a token
        value = raw.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise InvalidConfig(f"{where} is no UTF-8 text.") from None
    if not value or "\0" in value:
        raise InvalidConfig(f"{where} is empty or holds a NUL.")
    return value
