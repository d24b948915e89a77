"""The death watch: a descriptor per engine that becomes readable when it ends, so that a death is seen at once."""

from __future__ import annotations

import logging
import os
import select
from collections.abc import Callable, Iterable
from typing import Any, Self

from app.domain.lifecycle import SERVING, State
from workers.backends.base import Backend, BackendError, Handle
from workers.bootstrap import Runtime
from workers.engine_targets import handle_of

log = logging.getLogger(__name__)


class Pidfds:
    """Descriptors of the engines of ready replicas. A hint only: the sweep finds out without it, later."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._epoll = select.epoll()
        self._rows: dict[int, Any] = {}
        self._descriptors: dict[tuple[str, int], int] = {}

    def fileno(self) -> int:
        return self._epoll.fileno()

    def follow(self, rows: Iterable[Any]) -> None:
        """Watch the engines of those that serve; keep the newest row of those watched already."""
        for row in rows:
            key = (row.id, row.attempt)
            if key in self._descriptors:
                self._rows[self._descriptors[key]] = row
            elif State(row.state) in SERVING and row.backend_ref is not None:
                self._open(key, row)

    def take_dead(self) -> list[Any]:
        """Rows of engines that ended since the last call; they are not watched any more."""
        dead = []
        for descriptor, _ in self._epoll.poll(0):
            row = self._rows.pop(descriptor)
            self._descriptors.pop((row.id, row.attempt), None)
            self._epoll.unregister(descriptor)
            os.close(descriptor)
            dead.append(row)
        return dead

    def close(self) -> None:
        for descriptor in self._rows:
            os.close(descriptor)
        self._epoll.close()

    def _open(self, key: tuple[str, int], row: Any) -> None:
        handle = handle_of(row.backend, row.attempt_name, row.backend_ref)
        try:
            descriptor = watch_fd(self._runtime.backend_of(row), handle)
        except BackendError as error:
            log.warning("the death of replica %s is not watched for: %s", row.id, error)
            return
        if descriptor is not None:
            self._descriptors[key] = descriptor
            self._rows[descriptor] = row
            self._epoll.register(descriptor, select.EPOLLIN)


class Lifeline:
    """Whether one attempt's process still runs, asked often: the kernel tells, and nothing is read for it."""

    def __init__(self, backend: Backend, handle: Handle) -> None:
        self._descriptor = watch_fd(backend, handle)
        self._poll = select.poll()
        if self._descriptor is not None:
            self._poll.register(self._descriptor, select.POLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def goes_on(self) -> bool:
        """False when it ended, or was not there to be watched: then ``inspect`` says what became of it."""
        return self._descriptor is not None and not self._poll.poll(0)


def watch_fd(backend: Backend, handle: Handle) -> int | None:
    """A descriptor that becomes readable when the attempt's process ends; None where there is no such thing."""
    watch: Callable[[Handle], int | None] | None = getattr(backend, "watch_fd", None)
    return watch(handle) if watch else None
