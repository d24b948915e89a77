"""What a user imports and types. Speaks HTTP only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hostler.client import AsyncClient, Client
    from hostler.errors import HostlerError

__version__ = "0.4.0"
__all__ = ["AsyncClient", "Client", "HostlerError", "__version__"]


def __getattr__(name: str) -> Any:
    # `hostler --help` must not pay for the HTTP library, so the clients are loaded when first named
    if name in ("Client", "AsyncClient"):
        from hostler import client

        return getattr(client, name)
    if name == "HostlerError":
        from hostler.errors import HostlerError

        return HostlerError
    raise AttributeError(f"module 'hostler' has no attribute {name!r}")
