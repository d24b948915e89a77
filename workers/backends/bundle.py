"""The code that the ssh backend sends along: this version's own files, under a name made of their content.

The far host needs a Python and nothing else. What is sent lies there in a folder that gets its name by one ``rename``
when it is whole, so nobody ever runs half of it; and it is sent once.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

#: What ``far.py`` imports, and what that imports. A test runs it with these alone.
MODULES = (
    "app.domain.lifecycle",
    "app.domain.placeholders",
    *(
        f"workers.backends.{name}"
        for name in (
            "attempt_folder", "base", "far", "free_port", "hardware", "launching", "observing", "options", "output",
            "ports", "proc", "process", "program", "shim", "shims", "sockdiag", "stopping", "wire",
        )
    ),
    "pynvml",
)  # fmt: skip
PACKAGES = ("app", "app/domain", "workers", "workers/backends")
OLDEST_PYTHON = (3, 11)
#: Exit codes of the commands below, beside those of a shell (126, 127: no such Python).
NOT_THERE, NOT_OURS, BROKEN_OFF = 97, 98, 99

#: Both ends of history can read this: an old Python must be able to say that it is too old.
_MAIN = """\
import os, sys
os.umask(63)  # what importing writes is nobody else's either
if sys.version_info < {oldest}:
    sys.stdout.write('{{"error": "LaunchRefused", "message": "Python there is %d.%d and must be at least {words}; '
                     'name another one in the pool option python"}}' % tuple(sys.version_info[:2]))
    sys.exit(0)
from workers.backends.far import main
main(sys.argv[1])
"""
_EPOCH = (1980, 1, 1, 0, 0, 0)

#: Words: folder, name of the code, Python. The home folder is asked for, since start-up files may have left it.
RUN = (
    'case $1 in "~/"*) d=$HOME/${1#??};; *) d=$1;; esac; c=$d/$2; '
    f'[ -d "$c" ] || exit {NOT_THERE}; [ -O "$d" ] && [ -O "$c" ] || exit {NOT_OURS}; '
    'exec "$3" -I -S "$c" "$d"'
)
#: Run by the far Python with the words folder, name of the code and sum of the bundle; the bundle is its input.
INSTALL = f"""\
import sys
if sys.version_info < {OLDEST_PYTHON}:
    sys.stdout.write("%d.%d" % tuple(sys.version_info[:2]))
    sys.exit(0)
import compileall, hashlib, io, os, shutil, stat, tempfile, zipfile
os.umask(0o077)
folder, name, wanted = os.path.expanduser(sys.argv[1]), sys.argv[2], sys.argv[3]
data = sys.stdin.buffer.read()
if hashlib.sha256(data).hexdigest() != wanted:
    sys.exit({BROKEN_OFF})
os.makedirs(folder, mode=0o700, exist_ok=True)
found = os.stat(folder)
if found.st_uid != os.geteuid():
    sys.exit({NOT_OURS})
if stat.S_IMODE(found.st_mode) & 0o077:
    os.chmod(folder, 0o700)
draft = tempfile.mkdtemp(prefix=".new-code-", dir=folder)
with zipfile.ZipFile(io.BytesIO(data)) as bundle:
    bundle.extractall(draft)
compileall.compile_dir(draft, quiet=2)
for top, _, files in os.walk(draft):
    for file in files:
        opened = os.open(os.path.join(top, file), os.O_RDONLY)
        os.fsync(opened)
        os.close(opened)
try:
    os.rename(draft, os.path.join(folder, name))
except OSError:
    shutil.rmtree(draft)
    if not os.path.isdir(os.path.join(folder, name)):
        raise
"""


@dataclass(frozen=True)
class Bundle:
    """``data`` is a zip; ``name`` that of the folder it is unpacked into; ``sum`` its SHA-256 in hex."""

    name: str
    sum: str
    data: bytes


@cache
def make_bundle() -> Bundle:
    """The same bytes for the same version, whoever makes them."""
    main = _MAIN.format(oldest=OLDEST_PYTHON, words=".".join(map(str, OLDEST_PYTHON)))
    content = {"__main__.py": main.encode()} | {f"{package}/__init__.py": b"" for package in PACKAGES}
    for module in MODULES:
        spec = find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        content[f"{module.replace('.', '/')}.py"] = Path(spec.origin).read_bytes()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bundle:
        for path in sorted(content):
            bundle.writestr(zipfile.ZipInfo(path, _EPOCH), content[path], zipfile.ZIP_DEFLATED)
    data = file.getvalue()
    total = hashlib.sha256(data).hexdigest()
    return Bundle(f"code-{total[:16]}", total, data)
