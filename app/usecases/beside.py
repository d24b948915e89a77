"""Work beside the request that wants it: a database that hangs must not hold who can be answered from memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Beside(Generic[T]):
    """``act`` under way in a thread (a greenlet, in the API). It goes on when nobody waits for it any more."""

    def __init__(self, act: Callable[[], T], name: str) -> None:
        self._act = act
        self._over = threading.Event()
        self._found: list[T] = []
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name=name, daemon=True).start()

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    def wait(self, patience_s: float) -> bool:
        """Whether it is over within ``patience_s``."""
        return self._over.wait(patience_s)

    def result(self) -> T:
        """What ``act`` returned, or raised, once it is over."""
        if self._error is not None:
            raise self._error
        return self._found[0]

    def _run(self) -> None:
        try:
            self._found.append(self._act())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            self._error = error
        finally:
            self._over.set()
