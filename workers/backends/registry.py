"""Every backend, one line each."""

from __future__ import annotations

from collections.abc import Callable

from workers.backends.base import Backend, BackendContext, BackendError
from workers.backends.mock import MockBackend
from workers.backends.process import ProcessBackend

BACKENDS: dict[str, Callable[[BackendContext], Backend]] = {
    "process": ProcessBackend,
    "mock": MockBackend,
}


def open_backend(name: str, context: BackendContext) -> Backend:
    """An instance for this process. Raises BackendError for an unknown name."""
    try:
        make = BACKENDS[name]
    except KeyError:
        raise BackendError(f"there is no backend {name!r}; there are: {', '.join(sorted(BACKENDS))}") from None
    return make(context)
