"""Which environment names a user may set. A variable can be code: the loader, Python and the shells read them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from app.domain.masking import name_matches

#: Only role admin may set these, whatever an engine lists.
ADMIN_ONLY = (
    "LD_*",
    "DYLD_*",
    "PYTHON*",
    "BASH_ENV",
    "ENV",
    "IFS",
    "PATH",
    "HOSTLER_*",
    "GCONV_PATH",
    "GLIBC_TUNABLES",
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
#: What a user may ask for by these is decided by leases: they are told, and not handed on.
WISHES = {
    "CUDA_VISIBLE_DEVICES": "the devices come from the replica's lease",
    "VLLM_HOST": "the address comes from Hostler",
    "VLLM_PORT": "the port comes from the replica's lease",
}


def check_environment(environment: Mapping[str, str], allowed: Iterable[str], *, admin: bool) -> dict[str, list[str]]:
    """Errors by field (``environment.NAME``); empty when every name may be set."""
    errors: dict[str, list[str]] = {}
    patterns = tuple(allowed)
    for name, value in environment.items():
        problem = _problem(name, value, patterns, admin)
        if problem:
            errors[f"environment.{name}"] = [problem]
    return errors


def _problem(name: str, value: str, allowed: tuple[str, ...], admin: bool) -> str | None:
    if not _NAME.match(name):
        return "Not an environment name: letters, digits and underscores, no digit first."
    if "\0" in value:
        return "A value cannot hold a NUL character."
    if name == "HOSTLER_MARK":
        return "Hostler sets it itself."
    if name in WISHES or admin:
        return None
    if name_matches(name, ADMIN_ONLY) or not name_matches(name, allowed):
        listed = ", ".join(sorted(allowed)) or "none"
        return f"This engine's users may set: {listed}. Others need a key of role admin."
    return None
