"""One stack for the whole folder, on a small disk of its own where we may mount one."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stacks import Stack, stack

DISK_MB = 400
SLOTS = 256


@pytest.fixture(scope="package")
def disk() -> Iterator[Path]:
    """A folder on a small disk of its own, where we may mount one; in reach of the user whom root gives Postgres to."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o711)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", place]
    mounted = os.geteuid() == 0 and subprocess.run(mount, check=False, capture_output=True).returncode == 0
    try:
        yield place
    finally:
        if mounted:
            subprocess.run(["umount", place], check=True)
        place.rmdir()


@pytest.fixture(scope="package")
def up(disk: Path) -> Iterator[Stack]:
    quick = {"LEASE_S": "3", "SWEEP_INTERVAL_S": "1", "PROBE_INTERVAL_S": "1", "LOG_BYTES": "65536"}
    with stack(disk / "state", **{f"HOSTLER_{name}": value for name, value in quick.items()}) as made:
        made.up()
        assert made.layout.postgres.resolve().is_relative_to(disk.resolve())
        # clients create all the time, and the slower the machine the more come before a test has ended
        made.call("PATCH", "/api/v1/pools/local", {"slots": SLOTS})
        yield made
        made.must("down")
