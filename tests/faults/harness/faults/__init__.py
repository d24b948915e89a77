"""Every fault the harness knows, by name. A new one is one file and one line here."""

from __future__ import annotations

from tests.faults.harness.faults.base import Fault

FAULTS: dict[str, Fault] = {}
