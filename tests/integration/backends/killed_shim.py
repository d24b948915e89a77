"""Stands in for ``shim.py`` in tests: the same program, which kills itself at its Nth line (``$KILL_AT``)."""

import os
import runpy
import signal
import sys

shim, *arguments = sys.argv[1:]
seen: set[int] = set()


def trace(frame, event, _):  # type: ignore[no-untyped-def]
    if frame.f_code.co_filename != shim:
        return None
    if event == "line" and frame.f_lineno not in seen:
        seen.add(frame.f_lineno)
        if len(seen) == int(os.environ["KILL_AT"]):
            os.kill(os.getpid(), signal.SIGKILL)
    return trace


sys.argv = [shim, *arguments]
sys.settrace(trace)
runpy.run_path(shim, run_name="__main__")
