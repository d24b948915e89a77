"""Each start of an engine leaves a line in ``<folder>/starts/<attempt name>``: ``<pid> <kind>``, see ``facts.py``."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

#: Written by the very process that becomes the engine: no start goes uncounted, none is counted that was not.
_COUNT = 'echo "$$ process" >>"$0"; exec "$@"'


def folder() -> Path:
    return Path(os.environ["HOSTLER_FAULT_FOLDER"]) / "starts"


def _count_processes(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def launch(self: Any, launch: Any, *more: Any, **named: Any) -> Any:
        # a program that is not there must be refused as always
        if launch.argv and shutil.which(launch.argv[0]):
            launch = replace(launch, argv=("/bin/sh", "-c", _COUNT, str(folder() / launch.name), *launch.argv))
        return original(self, launch, *more, **named)

    return launch


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
    "workers.backends.process:ProcessBackend.launch": _count_processes,
    "workers.backends.mock:MockBackend._create": _count_mocks,
}
