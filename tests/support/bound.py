"""Processes that do not outlive the tests."""

from __future__ import annotations

import shutil


def bound(signal_name: str) -> list[str]:
    """Words before a command: what they start gets the signal when the test run that started it is killed."""
    return ["setpriv", "--pdeathsig", signal_name, "--"] if shutil.which("setpriv") else []
