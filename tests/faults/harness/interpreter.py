"""The interpreter of a stack under test: a virtual environment like the real one, that brings the harness's code in.

The product builds its own environment for what it starts and drops every ``PYTHON*`` name, as it should; but it goes on
with the interpreter it was started with. So nothing of the product has to know of this, and engines, which run with
``-I -S``, never see it.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

#: Of path files this one is read last: by then all that the others bring can be imported.
_MODULE = "zz_hostler_faults"
_SITE = '''"""Written by tests/faults/harness/interpreter.py."""
import os

# the roles only: the command line that starts them is nobody's target
if os.environ.get("HOSTLER_FAULT_FOLDER") and os.environ.get("HOSTLER_ROLE"):
    from tests.faults.harness.injection import begin

    begin()
'''


def make_interpreter(folder: Path) -> str:
    """Make the environment in ``folder``; the path of its ``python``."""
    packages = Path(sysconfig.get_path("purelib"))
    site = folder / "lib" / packages.parent.name / "site-packages"
    site.mkdir(parents=True)
    # links, not a path file: one program of ours looks for its packages in this folder itself
    for entry in packages.iterdir():
        (site / entry.name).symlink_to(entry)
    (site / f"{_MODULE}.py").write_text(_SITE)
    # not as sitecustomize: Debian's Python has one of its own, which is found first
    (site / f"{_MODULE}.pth").write_text(f"import {_MODULE}\n")
    base = Path(os.path.realpath(sys.executable))
    (folder / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n")
    (folder / "bin").mkdir()
    python = folder / "bin" / "python"
    python.symlink_to(base)
    return str(python)
