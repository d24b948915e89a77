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
        if entry.name != "sitecustomize.py":
            (site / entry.name).symlink_to(entry)
    (site / "sitecustomize.py").write_text(_SITE)
    base = Path(os.path.realpath(sys.executable))
    (folder / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n")
    (folder / "bin").mkdir()
    python = folder / "bin" / "python"
    python.symlink_to(base)
    return str(python)
