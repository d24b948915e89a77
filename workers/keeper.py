"""Holding on to a claim: a thread of the holder renews the lease, so a frozen holder stops renewing."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType
from typing import Self

from app.errors import Collided, Unavailable
from app.usecases import claims
from app.usecases.context import Context

log = logging.getLogger(__name__)


class Keeper:
    """Renews a task's lease while the block runs. ``held`` must be asked before each outside step."""

    def __init__(self, ctx: Context, task_id: str, lease_token: str) -> None:
        self._ctx = ctx
        self._task_id = task_id
        self._token = lease_token
        self._lease_s = ctx.settings.lease_s
        self._until = time.monotonic() + self._lease_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"keeper-{task_id}", daemon=True)

    @property
    def held(self) -> bool:
        """Whether the lease still holds by this process's clock, which goes on while the process is frozen."""
        return time.monotonic() < self._until

    @property
    def left_s(self) -> float:
        """Seconds that the lease surely holds: nothing may begin outside after that."""
        return max(0.0, self._until - time.monotonic())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()

    def _renew(self) -> None:
        while not self._done.wait(self._lease_s / 3):
            asked = time.monotonic()
            try:
                renewed = claims.renew(self._ctx, self._task_id, self._token, self._lease_s)
            except (Collided, Unavailable) as error:
                log.warning("lease of task %s was not renewed: %s", self._task_id, error)
                continue
            if not renewed:
                self._until = 0.0
                return
            # counted from before the question: the database's lease ends no sooner than this
            self._until = asked + self._lease_s
