"""Services: what is wanted, which replicas stand for it, and the hints that one of them changed.

Who changes anything of a service holds its row (``FOR NO KEY UPDATE``: a replica that refers to it may be written
beside), and takes it before tasks and replicas.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, text

from app.db.repos.newer import knows_services
from app.errors import Conflict

#: Of a member, what a plan needs. ``suspect``: its host is silent, so that what is known of it is old.
_PLANNED = """m.service_id, m.replica_id, m.revision, m.ordinal, m.tries, m.replaces, m.created_at,
    r.state, r.desired_state, r.reason, r.message, r.state_since, r.timestamps, r.lifetime_ends_at, r.released_at,
    coalesce(n.attributes ? 'silent', false) AS suspect"""
_LAST_ATTEMPT = "LEFT JOIN attempts a ON a.replica_id = r.id AND a.number = r.attempt"
#: And what its users look at besides.
_SHOWN = """r.attempt, r.pool, r.engine, r.model_name, r.node, r.host, r.port, r.base_url, r.spec->'recipe' AS recipe,
    a.job_id, (SELECT array_agg(l.number ORDER BY l.number) FROM leases l
        WHERE l.attempt_id = a.id AND l.kind IN ('gpu', 'pool_gpu') AND l.released_at IS NULL) AS gpus"""
_MEMBERS = """
SELECT {columns}
FROM services s JOIN service_members m ON m.service_id = s.id JOIN replicas r ON r.id = m.replica_id
LEFT JOIN nodes n ON n.name = r.node {more}
WHERE s.id = ANY(:ids) AND NOT m.past
ORDER BY m.service_id, m.ordinal, m.created_at, m.replica_id
"""
_READ_MEMBERS = text(_MEMBERS.format(columns=_PLANNED, more=""))
_READ_SHOWN = text(_MEMBERS.format(columns=f"{_PLANNED}, {_SHOWN}", more=_LAST_ATTEMPT))
#: What answers: as the gateway routes, a backend that cannot be asked proves nothing about its engine.
_READY = text(
    f"""
SELECT m.service_id, s.name AS service, m.replica_id, m.ordinal, m.revision, s.recipe, r.attempt, r.pool, r.engine,
    r.model_name, r.node, r.host, r.port, r.base_url, r.spec->'resolved'->'config' AS config,
    a.job_id
FROM service_members m JOIN services s ON s.id = m.service_id JOIN replicas r ON r.id = m.replica_id {_LAST_ATTEMPT}
WHERE m.service_id = :id AND r.state IN ('ready', 'unreachable') AND r.desired_state = 'running'
ORDER BY m.ordinal, m.created_at, m.replica_id
"""
)
_TARGETS = text(
    """
SELECT r.id AS replica_id, r.labels->>'service_id' AS service_id, s.name AS service, s.recipe, m.ordinal, m.revision,
    r.pool, r.engine, r.model_name, r.node, r.host, r.port, r.base_url
FROM replicas r LEFT JOIN service_members m ON m.replica_id = r.id LEFT JOIN services s ON s.id = m.service_id
WHERE r.state = 'ready' AND r.port IS NOT NULL ORDER BY r.id
"""
)
_FILTERS = {
    "name": "s.name = :name",
    "recipe": "(s.recipe = :recipe OR split_part(s.recipe, '/', 2) = :recipe)",
    "pool": "s.pool = :pool",
    "owner": "s.owner = :owner",
    "label": "s.labels @> CAST(:label AS jsonb)",
    "desired_state": "s.desired_state = :desired_state",
    "engines": "EXISTS (SELECT 1 FROM service_revisions AS r WHERE r.service_id = s.id AND r.number = s.revision"
    " AND r.spec->'replica'->'run'->>'engine' = ANY(:engines))",
}
#: Due by the clock. A time further ahead than it is ever set was left by a clock that was set back.
_DUE = text(
    """
SELECT id FROM services WHERE look_at <= hostler_now()
UNION SELECT id FROM services WHERE look_at > hostler_now() + make_interval(secs => :ahead_s)
UNION SELECT service_id FROM (SELECT service_id FROM service_hints ORDER BY id LIMIT :limit) AS hinted
LIMIT :limit
"""
)
_COLUMNS = "s.*, hostler_now() AS now"
_INSERT = text(
    """
INSERT INTO services (id, name, owner, recipe, pool, labels, count, look_at)
VALUES (:id, :name, :owner, :recipe, :pool, CAST(:labels AS jsonb), :count, hostler_now())
ON CONFLICT (name) WHERE desired_state = 'running' DO NOTHING RETURNING *, hostler_now() AS now
"""
)
_INSERT_REVISION = text(
    "INSERT INTO service_revisions (service_id, number, spec, environment, actor, cause)"
    " VALUES (:service_id, :number, CAST(:spec AS jsonb), :environment, :actor, :cause)"
)
_INSERT_MEMBER = text(
    "INSERT INTO service_members (replica_id, service_id, revision, ordinal, tries, replaces)"
    " VALUES (:replica_id, :service_id, :revision, :ordinal, :tries, :replaces)"
)
_INSERT_TASK = text(
    "INSERT INTO tasks (id, kind, state, phase, priority, pool, attempt, owner, request_id, arguments, started_at)"
    " VALUES (:id, :kind, 'running', :phase, 0, :pool, 1, :owner, :request_id, CAST(:arguments AS jsonb),"
    " hostler_now())"
)
_OPEN_TASKS = text(
    "SELECT id, kind, phase, arguments FROM tasks WHERE arguments->>'service_id' = ANY(:ids) AND replica_id IS NULL"
    " AND state IN ('queued', 'running') ORDER BY seq"
)
#: Columns of a service that a change may set, with what casts their value.
_CHANGEABLE = {
    "count": ":count",
    "revision": ":revision",
    "good_revision": ":good_revision",
    "desired_state": ":desired_state",
    "paused": ":paused",
    "labels": "CAST(:labels AS jsonb)",
    "pool": ":pool",
    "recipe": ":recipe",
    "rollout": "CAST(:rollout AS jsonb)",
    "reason": ":reason",
    "message": "left(:message, 4000)",
    "reset_at": "CASE WHEN :reset_at THEN hostler_now() ELSE reset_at END",
    "ended_at": "CASE WHEN :ended_at THEN hostler_now() END",
}


def is_there(connection: Connection) -> bool:
    """Whether the database was migrated to a version that has services."""
    return knows_services(connection)


def lock(connection: Connection, service_id: str) -> Any | None:
    """The service's row with ``now``, locked until the transaction ends; None when there is none."""
    query = text(f"SELECT {_COLUMNS} FROM services s WHERE s.id = :id FOR NO KEY UPDATE")
    return connection.execute(query, {"id": service_id}).first()


def lock_free(connection: Connection, service_ids: Sequence[str]) -> list[Any]:
    """Rows of those that nobody else is at, locked."""
    query = text(
        f"SELECT {_COLUMNS} FROM services s WHERE s.id = ANY(:ids) ORDER BY s.id FOR NO KEY UPDATE SKIP LOCKED"
    )
    return list(connection.execute(query, {"ids": list(service_ids)}))


def read(connection: Connection, service_id: str) -> Any | None:
    """The service's row with ``now``, or None."""
    return connection.execute(text(f"SELECT {_COLUMNS} FROM services s WHERE s.id = :id"), {"id": service_id}).first()


def find_id(connection: Connection, ref: str) -> str | None:
    """The id behind an id or a name: that of the running service, else of the last one that was called so. A cluster's
    job is a name too: of the service for which it runs, else of the last one. Raises Conflict when several are meant.
    """
    query = text(
        "SELECT id FROM services WHERE id = :ref UNION ALL"
        " (SELECT id FROM services WHERE name = :ref ORDER BY desired_state = 'running' DESC, created_at DESC LIMIT 1)"
        " LIMIT 1"
    )
    return connection.execute(query, {"ref": ref}).scalar() or _of_job(connection, ref)


def _of_job(connection: Connection, job_id: str) -> str | None:
    query = text(
        "SELECT m.service_id, bool_or(a.released_at IS NULL) AS runs FROM attempts a"
        " JOIN service_members m ON m.replica_id = a.replica_id WHERE a.job_id = :job_id"
        " GROUP BY m.service_id ORDER BY bool_or(a.released_at IS NULL) DESC, max(a.id) DESC LIMIT 2"
    )
    found = list(connection.execute(query, {"job_id": job_id}))
    if len(found) == 2 and found[1].runs:
        raise Conflict(
            f"Job {job_id} runs in more than one cluster: for the services {found[0].service_id} and"
            f" {found[1].service_id} at least. Say which by its id."
        )
    return found[0].service_id if found else None


def insert(
    connection: Connection,
    *,
    service_id: str,
    name: str,
    owner: str,
    recipe: str,
    pool: str,
    labels: Mapping[str, str],
    count: int,
) -> Any | None:
    """Add a service; returns its row, which nobody else can lock before the commit. None when a running one has that
    name."""
    values = {
        "id": service_id, "name": name, "owner": owner, "recipe": recipe, "pool": pool, "labels": json.dumps(labels),
        "count": count,
    }  # fmt: skip
    return connection.execute(_INSERT, values).first()


def insert_revision(
    connection: Connection,
    service_id: str,
    number: int,
    spec: Mapping[str, Any],
    environment: bytes | None,
    *,
    actor: str,
    cause: str,
) -> None:
    """Add a revision, for ever."""
    values = {
        "service_id": service_id, "number": number, "spec": json.dumps(spec), "environment": environment,
        "actor": actor, "cause": cause,
    }  # fmt: skip
    connection.execute(_INSERT_REVISION, values)


def read_revision(connection: Connection, service_id: str, number: int) -> Any | None:
    """One revision's row, or None."""
    query = text("SELECT * FROM service_revisions WHERE service_id = :id AND number = :number")
    return connection.execute(query, {"id": service_id, "number": number}).first()


def revision(connection: Connection, service_id: str, number: int) -> Any:
    """The same of one that members or the service's row refer to: it is kept. Raises LookupError when it is not."""
    found = read_revision(connection, service_id, number)
    if found is None:
        raise LookupError(f"revision {number} of service {service_id} is gone")
    return found


def read_revisions(connection: Connection, service_id: str, limit: int = 1000) -> list[Any]:
    """Its revisions, newest first."""
    query = text("SELECT * FROM service_revisions WHERE service_id = :id ORDER BY number DESC LIMIT :limit")
    return list(connection.execute(query, {"id": service_id, "limit": limit}))


def specs(connection: Connection, wanted: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Mapping[str, Any]]:
    """Specs by (service, number), in one read."""
    pairs = sorted(set(wanted))
    query = text(
        "SELECT r.service_id, r.number, r.spec"
        " FROM unnest(CAST(:ids AS text[]), CAST(:numbers AS integer[])) AS w(id, number)"
        " JOIN service_revisions r ON r.service_id = w.id AND r.number = w.number"
    )
    values = {"ids": [one for one, _ in pairs], "numbers": [number for _, number in pairs]}
    return {(row.service_id, row.number): row.spec for row in connection.execute(query, values)}


def last_number(connection: Connection, service_id: str) -> int:
    """The number of its newest revision."""
    query = text("SELECT max(number) FROM service_revisions WHERE service_id = :id")
    return int(connection.execute(query, {"id": service_id}).scalar() or 0)


def insert_members(connection: Connection, members: Sequence[Mapping[str, Any]]) -> None:
    """Add members: ``replica_id, service_id, revision, ordinal, tries, replaces`` each."""
    if members:
        connection.execute(_INSERT_MEMBER, list(members))


def move_members(connection: Connection, service_id: str, before: int, after: int) -> None:
    """Count who lives of one revision as of another, which runs the same. With the service's row locked."""
    query = text(
        "UPDATE service_members m SET revision = :after FROM replicas r WHERE m.service_id = :id"
        " AND m.revision = :before AND r.id = m.replica_id AND r.released_at IS NULL"
    )
    connection.execute(query, {"id": service_id, "before": before, "after": after})


def members(connection: Connection, service_ids: Sequence[str]) -> list[Any]:
    """Those by which is planned: all but what is gone and was replaced."""
    return list(connection.execute(_READ_MEMBERS, {"ids": list(service_ids)})) if service_ids else []


def mark_past(connection: Connection, replica_ids: Sequence[str]) -> None:
    """They were replaced and are gone: no plan needs them any more, until somebody restarts one (a trigger says so).

    One that is being restarted this moment is left out, and who restarts one after this waits until it is marked:
    otherwise the mark could come last, and hide a replica that runs.
    """
    if replica_ids:
        query = text(
            "WITH gone AS MATERIALIZED (SELECT id FROM replicas WHERE id = ANY(:ids) AND released_at IS NOT NULL"
            " ORDER BY id FOR SHARE SKIP LOCKED)"
            " UPDATE service_members SET past = true WHERE replica_id IN (SELECT id FROM gone)"
        )
        connection.execute(query, {"ids": list(replica_ids)})


def shown_members(connection: Connection, service_ids: Sequence[str]) -> list[Any]:
    """The same, with what users see of them."""
    return list(connection.execute(_READ_SHOWN, {"ids": list(service_ids)})) if service_ids else []


def ends_of(connection: Connection, replica_ids: Sequence[str]) -> dict[str, Any]:
    """Replicas by id, as far as they are kept: ``replica_id, state, state_since, reason, message``."""
    if not replica_ids:
        return {}
    query = text("SELECT id AS replica_id, state, state_since, reason, message FROM replicas WHERE id = ANY(:ids)")
    return {row.replica_id: row for row in connection.execute(query, {"ids": list(replica_ids)})}


def ready_members(connection: Connection, service_id: str) -> list[Any]:
    """Members that answer, by place."""
    return list(connection.execute(_READY, {"id": service_id}))


def targets(connection: Connection) -> list[Any]:
    """Every ready replica that has a port, of a service or not."""
    return list(connection.execute(_TARGETS))


def page(connection: Connection, filters: Mapping[str, Any], limit: int, behind: Sequence[Any] | None) -> list[Any]:
    """``limit`` services older than ``behind`` (created_at, id), newest first."""
    where, values = _where(filters)
    if behind is not None:
        where += " AND (s.created_at, s.id) < (:created_at, :behind_id)"
        values |= {"created_at": behind[0], "behind_id": behind[1]}
    query = text(f"SELECT {_COLUMNS} FROM services s WHERE {where} ORDER BY s.created_at DESC, s.id DESC LIMIT :limit")
    return list(connection.execute(query, {**values, "limit": limit}))


def total(connection: Connection, filters: Mapping[str, Any]) -> int:
    """How many match."""
    where, values = _where(filters)
    return int(connection.execute(text(f"SELECT count(*) FROM services s WHERE {where}"), values).scalar_one())


def service_of_task(connection: Connection, task_id: str) -> str | None:
    """The service that a task is of; None for a replica's, or none."""
    query = text("SELECT arguments->>'service_id' FROM tasks WHERE id = :id AND replica_id IS NULL")
    return connection.execute(query, {"id": task_id}).scalar()


def last_task(connection: Connection, service_id: str, kind: str) -> str | None:
    """The newest task of that kind, ended or not."""
    query = text(
        "SELECT id FROM tasks WHERE arguments->>'service_id' = :id AND replica_id IS NULL AND kind = :kind"
        " ORDER BY seq DESC LIMIT 1"
    )
    return connection.execute(query, {"id": service_id, "kind": kind}).scalar()


def change(connection: Connection, service_id: str, **columns: Any) -> None:
    """Set columns of ``_CHANGEABLE``; what a user sees of the service changed."""
    values = {name: json.dumps(value) if name in ("labels", "rollout") else value for name, value in columns.items()}
    sets = ", ".join(f"{name} = {_CHANGEABLE[name]}" for name in columns)
    query = text(
        f"UPDATE services SET {sets}, updated_at = hostler_now(), version = version + 1 WHERE id = :service_id"
    )
    connection.execute(query, {**values, "service_id": service_id})


def look_again(connection: Connection, waits: Mapping[str, float | None]) -> None:
    """When each is looked at next, in seconds from now; None: never by the clock."""
    query = text(
        "UPDATE services s SET look_at = hostler_now() + make_interval(secs => w.seconds)"
        " FROM unnest(CAST(:ids AS text[]), CAST(:seconds AS float8[])) AS w(id, seconds) WHERE s.id = w.id"
    )
    connection.execute(query, {"ids": list(waits), "seconds": list(waits.values())})


def due(connection: Connection, limit: int, ahead_s: float) -> list[str]:
    """Services that something may have to be done about: hinted at, or due by the clock. Also ids that are none."""
    return list(connection.execute(_DUE, {"limit": limit, "ahead_s": ahead_s}).scalars())


def hints_of(connection: Connection, service_ids: Sequence[str]) -> dict[str, list[int]]:
    """Ids of the hints that are there now, by service."""
    query = text("SELECT id, service_id FROM service_hints WHERE service_id = ANY(:ids)")
    found: dict[str, list[int]] = {}
    for row in connection.execute(query, {"ids": list(service_ids)}):
        found.setdefault(row.service_id, []).append(row.id)
    return found


def hint_hosts(connection: Connection, nodes: Sequence[str]) -> None:
    """Have the services looked at that have replicas on these hosts, or had them there last."""
    if not nodes or not is_there(connection):
        return
    query = text(
        "INSERT INTO service_hints (service_id) SELECT DISTINCT m.service_id FROM service_members m"
        " JOIN replicas r ON r.id = m.replica_id JOIN services s ON s.id = m.service_id"
        " WHERE r.node = ANY(:nodes) AND s.ended_at IS NULL"
    )
    connection.execute(query, {"nodes": list(nodes)})


def take_hints(connection: Connection, ids: Sequence[int]) -> None:
    """They were followed."""
    if ids:
        connection.execute(text("DELETE FROM service_hints WHERE id = ANY(:ids)"), {"ids": list(ids)})


def take_all_hints(connection: Connection, service_id: str) -> None:
    """The same for all that are there now; what is committed later is seen by the next one."""
    connection.execute(text("DELETE FROM service_hints WHERE service_id = :id"), {"id": service_id})


def drop_ownerless_hints(connection: Connection, service_ids: Sequence[str]) -> None:
    """Hints of what is no service: it was forgotten, or a replica's label is older than services are."""
    connection.execute(
        text(
            "DELETE FROM service_hints h WHERE h.service_id = ANY(:ids)"
            " AND NOT EXISTS (SELECT 1 FROM services s WHERE s.id = h.service_id)"
        ),
        {"ids": list(service_ids)},
    )


def insert_task(
    connection: Connection,
    *,
    task_id: str,
    kind: str,
    phase: str,
    pool: str,
    owner: str,
    request_id: str,
    arguments: Mapping[str, Any],
) -> None:
    """Add a service's task: it runs from the start, held by nobody; ``arguments`` has its ``service_id``."""
    values = {
        "id": task_id, "kind": kind, "phase": phase, "pool": pool, "owner": owner, "request_id": request_id,
        "arguments": json.dumps(arguments),
    }  # fmt: skip
    connection.execute(_INSERT_TASK, values)


def open_tasks(connection: Connection, service_ids: Sequence[str]) -> list[Any]:
    """(id, kind, phase, arguments) of the services' open tasks, oldest first. With the services' rows locked."""
    return list(connection.execute(_OPEN_TASKS, {"ids": list(service_ids)}))


def note_progress(connection: Connection, task_id: str, phase: str, done: int, of: int) -> None:
    """How far the task is, shown as its progress."""
    query = text(
        "UPDATE tasks SET phase = :phase, version = version + 1,"
        " arguments = arguments || jsonb_build_object('done', CAST(:done AS int), 'of', CAST(:of AS int))"
        " WHERE id = :id AND state = 'running'"
    )
    connection.execute(query, {"id": task_id, "phase": phase, "done": done, "of": of})


def lock_pool(connection: Connection, name: str) -> bool:
    """Whether there is such a pool; it is not deleted before the transaction ends."""
    return (
        connection.execute(text("SELECT 1 FROM pools WHERE name = :name FOR KEY SHARE"), {"name": name}).first()
        is not None
    )


def _where(filters: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    used = {name: value for name, value in filters.items() if name in _FILTERS and value not in (None, [], "")}
    conditions = [_FILTERS[name] for name in used]
    if "label" in used:
        pairs = [used["label"]] if isinstance(used["label"], str) else used["label"]
        used["label"] = json.dumps({name: value for name, _, value in (pair.partition("=") for pair in pairs)})
    return " AND ".join(conditions) or "true", used
