"""What may be asked where: from replicas, the catalogue and live registrations to routes and their members. Pure.

A *route* is a named set of members. A replica is a member of the route of its model (and so of each of the model's
aliases), unless it serves none, and of its service, if it has one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from app.domain.lifecycle import State

#: Replicas with this label belong to a service.
SERVICE_LABEL = "service_id"


class RouteKind(StrEnum):
    """What kind of name a route has. Where two collide, the one named first here wins."""

    MODEL = "model"
    ALIAS = "alias"
    SERVICE = "service"


class MemberKind(StrEnum):
    """OWN: a replica of ours, which takes the engine key. REGISTERED: somebody's server, which must never see it."""

    OWN = "own"
    REGISTERED = "registered"


class Standing(StrEnum):
    """Whether a member is asked.

    OUT and DRAINING get nothing new; what is in flight goes on. OUT may come back, DRAINING is asked to end.
    """

    IN = "in"
    OUT = "out"
    DRAINING = "draining"

    @property
    def takes_requests(self) -> bool:
        return self is Standing.IN


#: Which states of a replica that was ready in this attempt make it a member; every other state is none.
#:
#: ``unreachable`` stays in: that its backend or its host's agent is silent proves nothing about the engine, and the
#: control plane's silence must not end traffic. The gateway asks the engine itself, every second, and takes out what
#: does not answer. Its port is leased to it until it was seen gone, so nobody else of ours can answer there.
STANDING: Mapping[State, Standing] = {
    State.READY: Standing.IN,
    State.UNREACHABLE: Standing.IN,
    State.UNHEALTHY: Standing.OUT,
    State.STOPPING: Standing.DRAINING,
}
#: States whose replicas make their model known, though it may have no ready replica now.
_GONE = (State.STOPPED, State.FAILED)


@dataclass(frozen=True, order=True)
class Member:
    """One server that requests may go to. ``server`` is its name in the gateway and is never used again."""

    server: str
    kind: MemberKind
    #: the replica, or the registration
    id: str
    attempt: int
    model: str
    ip: str
    port: int
    standing: Standing = Standing.IN
    pool: str = ""
    node: str = ""
    service: str = ""
    check_path: str = "/health"
    #: requests that it may be given at once; 0 is any number
    max_concurrency: int = 0


@dataclass(frozen=True)
class ReplicaFacts:
    """What is stored of a replica that is not gone. ``ip`` and ``port`` are None until it was ready in this attempt."""

    id: str
    attempt: int
    state: State
    model: str
    ip: str | None = None
    port: int | None = None
    pool: str = ""
    node: str = ""
    service: str = ""
    service_name: str = ""
    check_path: str = "/health"
    max_concurrency: int = 0
    #: whether requests for its model may go to it; a store's name is no model
    serves_models: bool = True


@dataclass(frozen=True)
class ModelFacts:
    """One name of the catalogue, or one file of the models folder."""

    name: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class RegistrationFacts:
    """A live registration, once for each model whose route it joins; with no ``model`` it joins none."""

    id: str
    generation: int
    ip: str
    port: int
    answers: bool
    model: str = ""
    max_concurrency: int = 0


@dataclass(frozen=True)
class Route:
    """A name and the members behind it. Without members it is known, and nothing of it is ready."""

    kind: RouteKind
    name: str
    #: names of servers, sorted
    members: tuple[str, ...] = ()
    #: the one model that is behind it, "" when it is not one
    model: str = ""

    @property
    def key(self) -> str:
        """What the gateway looks it up by: services have names of their own beside those of models."""
        return hashed(self.name)


@dataclass(frozen=True)
class RouteTable:
    """Every route by (kind, name), and every member by server."""

    routes: tuple[Route, ...] = ()
    members: Mapping[str, Member] = field(default_factory=dict)

    def without(self, servers: Iterable[str]) -> RouteTable:
        """The same without some servers; their routes stay known."""
        gone = set(servers)
        if not gone & set(self.members):
            return self
        routes = tuple(
            replace(route, members=tuple(name for name in route.members if name not in gone)) for route in self.routes
        )
        return RouteTable(routes, {name: one for name, one in self.members.items() if name not in gone})


def plan_routes(
    replicas: Iterable[ReplicaFacts],
    models: Iterable[ModelFacts] = (),
    registrations: Iterable[RegistrationFacts] = (),
) -> RouteTable:
    """The table that follows from what is stored. The order of the rows does not matter."""
    names = _names(models)
    members: dict[str, Member] = {}
    behind: dict[tuple[RouteKind, str], set[str]] = {(kind, name): set() for name, (kind, _model) in names.items()}
    of_no_model: set[str] = set()
    called: dict[str, set[str]] = {}

    def known(name: str) -> str:
        """The model that ``name`` means; what no catalogue knows is a model by itself."""
        if name not in names:
            names[name] = (RouteKind.MODEL, name)
            behind[RouteKind.MODEL, name] = set()
        return names[name][1]

    for replica in replicas:
        if replica.state in _GONE:
            continue
        model = known(replica.model) if replica.serves_models else replica.model
        services = {replica.service, replica.service_name} - {""}
        for service in services:
            behind.setdefault((RouteKind.SERVICE, service), set())
        member = _own(replica, model)
        if member is not None:
            members[member.server] = member
            called[member.server] = services
            if not replica.serves_models:
                of_no_model.add(member.server)
    for registration in registrations:
        if registration.answers and registration.model:
            member = _registered(registration, known(registration.model))
            members[member.server] = member
    _fill(behind, names, members, of_no_model, called)
    return RouteTable(
        tuple(
            Route(kind, name, tuple(sorted(found)), _model_of(kind, name, names, found, members))
            for (kind, name), found in sorted(behind.items())
        ),
        dict(sorted(members.items())),
    )


def hashed(name: str) -> str:
    """The key of a name in the gateway's maps, as HAProxy's ``sha2(256),hex`` writes it."""
    return hashlib.sha256(name.encode()).hexdigest().upper()


def server_name(replica_id: str, attempt: int) -> str:
    """The server of a replica's attempt."""
    return f"{replica_id}-{attempt}"


def registered_name(registration_id: str, generation: int, model: str) -> str:
    """The server of a registration in the route of one of its models. Both are free text: a hash stands for them."""
    digest = hashlib.sha256(f"{registration_id}\0{model}".encode()).hexdigest()
    return f"reg-{digest[:16]}-{generation}"


def _names(models: Iterable[ModelFacts]) -> dict[str, tuple[RouteKind, str]]:
    """name -> (its kind, the model it means)."""
    known = sorted(models, key=lambda model: model.name)
    # a name comes before an alias, and of two models with one alias the first has it, as in the catalogue's own look-up
    names = {alias: (RouteKind.ALIAS, model.name) for model in reversed(known) for alias in model.aliases}
    return names | {model.name: (RouteKind.MODEL, model.name) for model in known}


def _own(replica: ReplicaFacts, model: str) -> Member | None:
    standing = STANDING.get(replica.state)
    if standing is None or replica.ip is None or replica.port is None:
        return None
    return Member(
        server=server_name(replica.id, replica.attempt),
        kind=MemberKind.OWN,
        id=replica.id,
        attempt=replica.attempt,
        model=model,
        ip=replica.ip,
        port=replica.port,
        standing=standing,
        pool=replica.pool,
        node=replica.node,
        service=replica.service,
        check_path=replica.check_path,
        max_concurrency=replica.max_concurrency,
    )


def _registered(registration: RegistrationFacts, model: str) -> Member:
    return Member(
        server=registered_name(registration.id, registration.generation, model),
        kind=MemberKind.REGISTERED,
        id=registration.id,
        attempt=registration.generation,
        model=model,
        ip=registration.ip,
        port=registration.port,
        max_concurrency=registration.max_concurrency,
    )


def _fill(
    behind: dict[tuple[RouteKind, str], set[str]],
    names: Mapping[str, tuple[RouteKind, str]],
    members: Mapping[str, Member],
    of_no_model: Container[str],
    called: Mapping[str, Iterable[str]],
) -> None:
    of_model: dict[str, set[str]] = {}
    for member in members.values():
        if member.server not in of_no_model:
            of_model.setdefault(member.model, set()).add(member.server)
        for service in called.get(member.server, ()):
            behind[RouteKind.SERVICE, service].add(member.server)
    for name, (kind, model) in names.items():
        behind[kind, name] = of_model.get(model, set())


def _model_of(
    kind: RouteKind,
    name: str,
    names: Mapping[str, tuple[RouteKind, str]],
    found: Iterable[str],
    members: Mapping[str, Member],
) -> str:
    if kind is not RouteKind.SERVICE:
        return names[name][1]
    models = {members[server].model for server in found}
    return models.pop() if len(models) == 1 else ""
