"""Users of this host, and folders that all of them can enter."""

from __future__ import annotations

import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.stack.runas import Account


def account(name: str) -> Account:
    """Raises KeyError when there is no such user."""
    entry = pwd.getpwnam(name)
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir)


@pytest.fixture
def open_tmp() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are 0700."""
    folder = Path(tempfile.mkdtemp(prefix="hostler-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)
