"""Options that several backends know by the same name, and what they are when nobody sets them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_PORTS = (20000, 29999)

#: For ``options_schema`` under the name ``path``: an administrator's, for it decides which program a name means.
PATH_SCHEMA: Mapping[str, Any] = {"type": "string", "description": "PATH of what is launched.", "x-admin": True}
#: For ``options_schema`` under the name ``log_bytes``.
LOG_BYTES_SCHEMA: Mapping[str, Any] = {"type": "integer", "minimum": 4096, "description": "Output kept per attempt."}
#: For ``options_schema`` under the name ``path_map``.
PATH_MAP_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "description": "Folders of this host and what they are called there, for arguments and variables that begin so.",
    "x-admin": True,
    "propertyNames": {"pattern": "^/"},
    "additionalProperties": {"type": "string", "pattern": "^/", "maxLength": 4096},
}


def ports_schema(lowest: int) -> Mapping[str, Any]:
    """For ``options_schema`` under the name ``ports``, where nobody leases ports."""
    return {
        "type": "array",
        "items": {"type": "integer", "minimum": lowest, "maximum": 65535},
        "minItems": 2,
        "maxItems": 2,
        "x-ascending": True,
        "x-admin": True,
        "description": f"First and last port that engines may take there; {list(DEFAULT_PORTS)} by default.",
    }
