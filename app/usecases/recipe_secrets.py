"""Secrets by reference: files of HOSTLER_SECRETS_DIR, read on the host and in the moment of a launch, kept nowhere."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.domain.recipe_schema import SECRET_FILE
from app.errors import InvalidConfig
from app.settings import Settings
from app.stack.layout import Layout

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
    if known is None or known[0] < time.monotonic():
        known = _values[settings.secrets_dir] = (time.monotonic() + _VALUES_S, tuple(_look(settings)))
    return known[1]


#: As last read, and until when that is good enough.
_values: dict[Path, tuple[float, tuple[str, ...]]] = {}
_VALUES_S = 2.0
#: A shorter word would be masked in half of all lines.
_SHORTEST = 6


def _look(settings: Settings) -> list[str]:
    try:
        files = os.listdir(settings.secrets_dir)
    except OSError:
        return []
    found: set[str] = set()
    for file in files[:1000]:
        try:
            value = _read(settings, file, file, optional=True)
        except InvalidConfig:
            # what cannot be used as a secret was given to no engine
            continue
        found.update(line for line in (value or "").splitlines() if len(line) >= _SHORTEST)
    return sorted(found, key=len, reverse=True)


def _read(settings: Settings, name: str, file: str, *, optional: bool) -> str | None:
    folder = settings.secrets_dir
    path = folder / file
    where = f"the secret {name} (file {path} on {settings.node_name})"
    if not _NAME.match(file):
        raise InvalidConfig(f"{where}: a secret is named by a bare file name.")
    if os.path.realpath(folder) == os.path.realpath(Layout(settings.state_dir).secrets):
        raise InvalidConfig(f"{where}: HOSTLER_SECRETS_DIR must not be the folder of the stack's own secrets.")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        if optional:
            return None
        raise InvalidConfig(f"{where}: there is no such file. Put it there with mode 0600.") from None
    except OSError as error:
        raise InvalidConfig(f"{where} cannot be opened: {error.strerror}.") from error
    with os.fdopen(descriptor, "rb") as opened:
        _check(where, folder, path, descriptor)
        try:
            raw = opened.read(LARGEST + 1)
        except OSError as error:
            raise InvalidConfig(f"{where} cannot be read: {error.strerror}.") from error
    return _text(where, raw)


def _check(where: str, folder: Path, path: Path, descriptor: int) -> None:
    """Of what was opened, so that nothing changes between look and use."""
    seen = os.fstat(descriptor)
    if not stat.S_ISREG(seen.st_mode):
        raise InvalidConfig(f"{where} is no file.")
    place = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
    if not place.is_relative_to(os.path.realpath(folder)):
        raise InvalidConfig(f"{where} is a link that leads out of the folder.")
    if seen.st_uid not in (0, os.geteuid()):
        raise InvalidConfig(f"{where} belongs to another user (uid {seen.st_uid}). chown it to whom Hostler runs as.")
    if seen.st_mode & 0o077:
        raise InvalidConfig(f"{where} is open to others. chmod 600 {path}")
    held = os.stat(folder)
    if held.st_uid not in (0, os.geteuid()) or held.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InvalidConfig(f"{where}: others may write the folder. chmod go-w {folder}")


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
