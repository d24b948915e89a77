"""The chat's workers: which replicas answer, whether one ever did, and how many have nothing to do.

They are the replicas of the service ``HOSTLER_CHAT_SERVICE``. While there is none, whatever serves the default model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock

from sqlalchemy import Connection

from app.db.repos import chat as repo
from app.engines.registry import STORES
from app.errors import ModelNotFound, ModelRequired, NoReadyReplica, NotOffered, RouteFull, Starting
from app.usecases import served
from app.usecases.context import Actor, Context
from app.usecases.idle import count_idle
from app.usecases.registered_models import registered_models
from app.usecases.served import Target

#: Between two looks, for all who wait, for the replacement of a service's only worker.
LOOK_S = 0.05
#: Who counts what is idle has no key.
_ANYBODY = Actor("", "", "infer")


@dataclass
class Room:
    """Bounds how many wait, in one process, while there is no worker at all; who waits for a busy one stands in the
    gateway's own queue."""

    most: int
    _taken: int = 0

    @contextmanager
    def seat(self) -> Iterator[None]:
        """Raises RouteFull when all are taken."""
        if self._taken >= self.most:
            raise RouteFull(retry_after_s=2)
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


@dataclass
class Chat:
    """One per process."""

    context: Context
    room: Room = field(init=False)
    #: services that were ready once; "" is for whatever there is without one. That does not go away.
    _started: set[str] = field(default_factory=set, repr=False)
    #: until when a service was seen without any replica
    _none_until: dict[str, float] = field(default_factory=dict, repr=False)
    _counting: Lock = field(default_factory=Lock, repr=False)
    #: when the last count began, and what it was
    _counted: tuple[float, int] = (0.0, 0)

    def __post_init__(self) -> None:
        self.room = Room(self.context.settings.gateway_queue)

    def choose(self, actor: Actor, left: Callable[[], bool] = bool) -> Target:
        """Where a request goes. Waits for a worker that is being replaced as long as one waits for a busy one, and
        while the caller has not ``left``.

        Raises Starting, NoReadyReplica, RouteFull, ModelForbidden, NotOffered and, without a service, ModelNotFound.
        """
        target = self._look(actor)
        if target is not None:
            return target
        until = time.monotonic() + self.context.settings.gateway_queue_s
        with self.room.seat():
            while time.monotonic() < until and not left():
                time.sleep(LOOK_S)
                target = self._look(actor)
                if target is not None:
                    return target
        raise NoReadyReplica("No worker of the chat is left. See `hostler service list`.")

    def count_idle(self) -> int:
        """Workers with nothing to do, as this host's gateway counts. Raises Starting.

        Anybody may ask: those who do while it is counted share the next count, which is as new as their question.
        """
        asked_at = time.monotonic()
        with self._counting:
            if self._counted[0] < asked_at:
                began_at = time.monotonic()
                target = self._any_target()
                self._counted = began_at, 0 if target is None else count_idle(self.context.settings, target)
            return self._counted[1]

    def _any_target(self) -> Target | None:
        """Where a request of a key without limits would go; None for nowhere. Raises Starting."""
        try:
            return self._look(_ANYBODY)
        except (ModelNotFound, NoReadyReplica, NotOffered):
            return None

    def _look(self, actor: Actor) -> Target | None:
        """None while the service has no replica, as another request may have found a moment ago."""
        service_id = self._service()
        if not service_id:
            return self._default(actor)
        if time.monotonic() < self._none_until.get(service_id, 0.0):
            return None
        target = served.choose_service(self.context, actor, service_id)
        if target is None:
            self._none_until = {service_id: time.monotonic() + LOOK_S}
        return target

    def _service(self) -> str:
        """Raises Starting until the first worker was ready."""
        name = self.context.settings.chat_service
        with self.context.database.read() as connection:
            row = repo.find_service(connection, name)
            service_id = row.id if row is not None else ""
            if service_id not in self._started:
                if not (row.was_ready if row is not None else self._was_default_ready(connection)):
                    raise _starting(name, is_there=row is not None)
                self._started.add(service_id)
        return service_id

    def _was_default_ready(self, connection: Connection) -> bool:
        """Whether anything that may answer without a service is, or was, ready."""
        default = self.context.settings.default_model
        name, names = served.names_of(connection, default) if default else ("", None)
        registered = registered_models(self.context, connection)
        return repo.was_any_ready(connection, names, STORES) or (name in registered if default else bool(registered))

    def _default(self, actor: Actor) -> Target:
        try:
            return served.choose(self.context, actor, None)
        except ModelRequired as error:
            # the request has no field that could say which
            ready = "several models are ready" if error.extra.get("models") else "no model is ready"
            name = self.context.settings.chat_service
            raise NoReadyReplica(
                f"No service is named {name!r} and {ready}. Set HOSTLER_CHAT_SERVICE or HOSTLER_DEFAULT_MODEL."
            ) from error


def _starting(name: str, *, is_there: bool) -> Starting:
    hint = (
        f"No replica of the service {name!r} was ready yet: `hostler service get {name}` says why."
        if is_there
        else f"There is no service {name!r}, and nothing is ready: start with LLM_MODEL_PATH, or create a service."
    )
    # these very words are promised
    return Starting("Server is starting up", errors={"service": [hint]})
