"""Code that the harness brings into the product's own processes, from outside.

The stack is started with an interpreter of the harness's (see ``interpreter.py``): a virtual environment beside the
real one, which calls ``begin`` as it starts. A function named ``module:dotted.name`` is replaced the moment its
module was loaded, so that nobody can have taken the original from there. Nothing happens without
``HOSTLER_FAULT_FOLDER``.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

FOLDER = "HOSTLER_FAULT_FOLDER"
PLANT = "HOSTLER_FAULT_PLANT"

Wrap = Callable[[Any], Any]


def begin() -> None:
    """In every process of the stack, before the product's code is loaded."""
    if not os.environ.get(FOLDER):
        return
    hooks = Hooks()
    from tests.faults.harness import failpoints, starts

    # the plant first: a failpoint goes around whatever stands there
    plant = os.environ.get(PLANT)
    if plant:
        hooks.add_all(importlib.import_module(f"tests.faults.harness.plants.{plant}").PATCHES)
    hooks.add_all(starts.PATCHES)
    for target, wrap in failpoints.patches():
        hooks.add(target, wrap)
    sys.meta_path.insert(0, hooks)


class Hooks(importlib.abc.MetaPathFinder):
    """Finds modules as always, and lets those that are named be changed right after they ran."""

    def __init__(self) -> None:
        self._wraps: dict[str, list[tuple[str, Wrap]]] = {}

    def add(self, target: str, wrap: Wrap) -> None:
        module, _, dotted = target.partition(":")
        self._wraps.setdefault(module, []).append((dotted, wrap))

    def add_all(self, patches: dict[str, Wrap]) -> None:
        for target, wrap in patches.items():
            self.add(target, wrap)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self._wraps:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Changing(spec.loader, self._wraps[fullname])
        return spec


class _Changing(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader, wraps: list[tuple[str, Wrap]]) -> None:
        self._loader = loader
        self._wraps = wraps

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        for dotted, wrap in self._wraps:
            *owners, name = dotted.split(".")
            owner: Any = module
            for part in owners:
                owner = getattr(owner, part)
            # a name that is gone must be noticed: a failpoint that never fires proves nothing
            setattr(owner, name, wrap(getattr(owner, name)))
