"""Each start of an engine leaves a line in ``<folder>/starts/<attempt name>``: ``<pid> <kind>``, see ``facts.py``."""

from __future__ import annotations

import functools
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

#: Written by the very process that becomes the engine: no start goes uncounted, none is counted that was not.
_COUNT = 'echo "$$ process" >>"$0"; exec "$@"'
#: The same of a cluster, which may begin a job anew and says how often it did.
_COUNT_RUN = 'echo "$$ run-${SLURM_RESTART_COUNT:-0} job-$SLURM_JOB_ID" >>"$0"; exec "$@"'
#: And in a container, where there may be no shell.
_COUNT_CONTAINED = """\
import os, sys
with open(sys.argv[1], "a") as file:
    file.write(f"{os.getpid()} process\\n")
os.execvp(sys.argv[2], sys.argv[2:])
"""


def folder() -> Path:
    return Path(os.environ["HOSTLER_FAULT_FOLDER"]) / "starts"


def _counting(*command: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Start ``command`` with the file to count in and the engine's own words instead of the engine."""

    def count(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def launch(self: Any, launch: Any, *more: Any, **named: Any) -> Any:
            # a program that is not there must be refused as always
            if launch.argv and shutil.which(launch.argv[0]):
                launch = replace(launch, argv=(*command, str(folder() / launch.name), *launch.argv))
            return original(self, launch, *more, **named)

        return launch

    return count


def _count_mocks(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def create(self: Any, name: str, kind: str, value: Any) -> Any:
        made = original(self, name, kind, value)
        if made and kind == "json" and not value.get("sealed"):
            with open(folder() / name, "a", encoding="utf-8") as file:
                file.write(f"{os.getpid()} mock\n")
        return made

    return create


PATCHES = {
    # the verb of every backend, which changes less than what is behind it
    "workers.backends.process:ProcessBackend.launch": _counting("/bin/sh", "-c", _COUNT),
    "workers.backends.ssh:SshBackend.launch": _counting("/bin/sh", "-c", _COUNT),
    "workers.backends.slurm:SlurmBackend.launch": _counting("/bin/sh", "-c", _COUNT_RUN),
    "workers.backends.docker:DockerBackend.launch": _counting(
        os.path.realpath(sys.executable), "-I", "-S", "-c", _COUNT_CONTAINED
    ),
    "workers.backends.mock:MockBackend._create": _count_mocks,
}
