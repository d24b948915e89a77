"""Registrations: who registered what, which process holds the stream, and what changed since one looked last."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, text

#: What a registration may not have: a port that is leased to an engine of ours. Two arms, each of which is a join.
_LEASED = """(
    EXISTS (SELECT 1 FROM leases l WHERE l.kind = 'port' AND l.released_at IS NULL
            AND l.number = {port} AND l.scope = {node} AND {local})
    OR EXISTS (SELECT 1 FROM leases l JOIN nodes n ON n.name = l.scope WHERE l.kind = 'port' AND l.released_at IS NULL
               AND l.number = {port} AND n.address = ANY({addresses}) AND NOT {local}))"""
_ROW_LEASED = _LEASED.format(port="r.port", node="r.node", local="r.local", addresses="r.addresses")
#: Nor the door of another host's gateway.
_NEW_LEASED = (
    "("
    + _LEASED.format(
        port="CAST(:port AS integer)",
        node=":node",
        local="CAST(:local AS boolean)",
        addresses="CAST(:addresses AS text[])",
    )
    + " OR (CAST(:port AS integer) = :door AND EXISTS (SELECT 1 FROM nodes n"
    " WHERE n.address = ANY(CAST(:addresses AS text[])))))"
)

#: A host whose heartbeat is older has no agent.
AGENT_SILENT_S = 30
_COLUMNS = (
    "r.replica_id, r.generation, r.owner, r.registrar, r.node, r.endpoint, r.host, r.port, r.addresses, r.address,"
    " r.local, r.capabilities, r.health, r.speaks, r.message, r.registered_at, r.connected_at, r.checked_at,"
    " r.answered_at, r.ended_at, r.end_reason"
)
_KEY = "k.name AS owner_name, k.role, k.models"
_JOINED = f"SELECT {_COLUMNS}, {_KEY} FROM registrations r JOIN keys k ON k.id = r.owner"

# what is known of the very same endpoint stays known when its registrar comes back
_SAME = "registrations.ended_at IS NULL AND registrations.endpoint = excluded.endpoint" + (
    " AND registrations.addresses = excluded.addresses"
)
_REGISTER = text(
    f"""
WITH made AS (
    INSERT INTO registrations (replica_id, generation, owner, registrar, node, endpoint, host, port, addresses, address,
                               local, capabilities)
    SELECT :replica_id, nextval('registration_generations'), :owner, :registrar, :node, :endpoint, :host, :port,
           CAST(:addresses AS text[]), :address, :local, CAST(:capabilities AS json)
    WHERE NOT EXISTS (SELECT 1 FROM replicas WHERE id = :replica_id) AND NOT {_NEW_LEASED}
    ON CONFLICT (replica_id) DO UPDATE SET
        generation = excluded.generation, owner = excluded.owner, registrar = excluded.registrar, node = excluded.node,
        endpoint = excluded.endpoint, host = excluded.host, port = excluded.port, addresses = excluded.addresses,
        local = excluded.local, capabilities = excluded.capabilities,
        address = CASE WHEN {_SAME} THEN registrations.address ELSE excluded.address END,
        health = CASE WHEN {_SAME} THEN registrations.health ELSE excluded.health END,
        speaks = CASE WHEN {_SAME} THEN registrations.speaks ELSE excluded.speaks END,
        message = CASE WHEN {_SAME} THEN registrations.message ELSE excluded.message END,
        registered_at = CASE WHEN registrations.ended_at IS NULL THEN registrations.registered_at
                             ELSE excluded.registered_at END,
        connected_at = excluded.connected_at, checked_at = NULL, ended_at = NULL, end_reason = NULL
    WHERE registrations.ended_at IS NOT NULL OR registrations.owner = excluded.owner
    RETURNING replica_id, generation, registered_at < connected_at AS taken_over
),
told AS (
    INSERT INTO events (kind, replica_id, node, actor, cause, message, request_id, data)
    SELECT CASE WHEN taken_over THEN 'registration_taken_over' ELSE 'registration_started' END, replica_id, :node,
           :actor, 'request', :endpoint, :request_id, jsonb_build_object('generation', generation)
    FROM made
)
SELECT generation FROM made
"""
)
_WHY_NOT = text(
    f"""
SELECT EXISTS (SELECT 1 FROM replicas WHERE id = :replica_id) AS is_replica, {_NEW_LEASED} AS leased,
       EXISTS (SELECT 1 FROM registrations WHERE replica_id = :replica_id AND ended_at IS NULL
               AND owner <> :owner) AS is_anothers
"""
)

_KEEP_REGISTRAR = text(
    "INSERT INTO registrars (id, node) VALUES (:id, :node) ON CONFLICT (id) DO UPDATE"
    " SET renewals = registrars.renewals + 1, renewed_at = hostler_now() RETURNING renewals"
)

_TOLD_ENDED = """
INSERT INTO events (kind, replica_id, node, actor, cause, message, request_id, data)
SELECT 'registration_ended', gone.replica_id, gone.node, coalesce(CAST(:actor AS text), keys.name), gone.end_reason,
       gone.endpoint, :request_id, jsonb_build_object('generation', gone.generation)
FROM gone JOIN keys ON keys.id = gone.owner RETURNING replica_id
"""
_GONE = "r.replica_id, r.generation, r.node, r.owner, r.endpoint, r.end_reason"


def _ending(which: str, source: str = "") -> Any:
    return text(
        f"WITH gone AS (UPDATE registrations r SET ended_at = hostler_now(), end_reason = :reason {source}"
        f" WHERE r.ended_at IS NULL AND {which} RETURNING {_GONE}) {_TOLD_ENDED}"
    )


_NAMED = "FROM unnest(CAST(:ids AS text[]), CAST(:generations AS bigint[])) AS named(replica_id, generation)"
_IS_NAMED = "r.replica_id = named.replica_id AND r.generation = named.generation"
_END = _ending(_IS_NAMED, _NAMED)
_REMOVE = _ending("r.replica_id = :replica_id")
_END_LAPSED = _ending("r.registrar = ANY(:registrars)")
# as an array: the few ended keys are looked up by the index of owners, and not every registration's key
_END_KEYLESS = _ending(
    "r.owner = ANY(ARRAY(SELECT id FROM keys WHERE revoked_at IS NOT NULL OR expires_at <= hostler_now()))"
)
# few ports are leased, and an index has the registrations of each
_END_LEASED = _ending(
    f"r.port IN (SELECT number FROM leases WHERE kind = 'port' AND released_at IS NULL) AND {_ROW_LEASED}"
)
_REVIVE = text(
    f"""
WITH back AS (
    UPDATE registrations r SET ended_at = NULL, end_reason = NULL, registrar = :registrar {_NAMED}
    WHERE {_IS_NAMED} AND r.end_reason = 'lapsed' RETURNING r.replica_id, r.node, r.endpoint, r.generation
)
INSERT INTO events (kind, replica_id, node, actor, cause, message, data)
SELECT 'registration_started', replica_id, node, 'hostler', 'its stream was held all along', endpoint,
       jsonb_build_object('generation', generation) FROM back RETURNING replica_id
"""
)


def register(connection: Connection, values: Mapping[str, Any]) -> int | None:
    """The generation of the new registration; None when the id or the endpoint is not to be had (``why_not``)."""
    row = connection.execute(_REGISTER, {**values, "capabilities": json.dumps(values["capabilities"])}).first()
    return None if row is None else int(row.generation)


def why_not(connection: Connection, values: Mapping[str, Any]) -> Any:
    """(is_replica, leased, is_anothers): what keeps ``register`` from it now."""
    names = ("replica_id", "owner", "port", "node", "local", "addresses", "door")
    return connection.execute(_WHY_NOT, {name: values[name] for name in names}).one()


def keep_registrar(connection: Connection, registrar: str, node: str) -> None:
    """This process lives and holds streams."""
    connection.execute(_KEEP_REGISTRAR, {"id": registrar, "node": node})


def registrars(connection: Connection) -> dict[str, int]:
    """Every process that holds or held streams, with its count of renewals."""
    return {row.id: row.renewals for row in connection.execute(text("SELECT id, renewals FROM registrars"))}


def forget_registrars(connection: Connection, gone: Sequence[str]) -> None:
    """Delete those of them that hold nothing that lives."""
    query = text(
        "DELETE FROM registrars g WHERE id = ANY(:gone) AND NOT EXISTS (SELECT 1 FROM registrations r"
        " WHERE r.registrar = g.id AND r.ended_at IS NULL)"
    )
    connection.execute(query, {"gone": list(gone)})


def end(connection: Connection, streams: Sequence[tuple[str, int]], reason: str) -> list[str]:
    """End those (id, generation) that still are what is registered; returns their ids."""
    values = {"ids": [one for one, _ in streams], "generations": [generation for _, generation in streams]}
    return _ended(connection, _END, reason, **values)


def remove(connection: Connection, replica_id: str, actor: str, request_id: str) -> bool:
    """End it whoever holds it; False when it does not live."""
    return bool(_ended(connection, _REMOVE, "removed", actor=actor, request_id=request_id, replica_id=replica_id))


def end_lapsed(connection: Connection, gone: Sequence[str]) -> list[str]:
    """End what processes held that are no more."""
    return _ended(connection, _END_LAPSED, "lapsed", actor="hostler", registrars=list(gone))


def end_keyless(connection: Connection) -> list[str]:
    """End what was registered with keys that were revoked or have expired."""
    return _ended(connection, _END_KEYLESS, "key_ended", actor="hostler")


def end_leased(connection: Connection) -> list[str]:
    """End what has a port that was leased to an engine of ours meanwhile."""
    return _ended(connection, _END_LEASED, "refused", actor="hostler")


def revive(connection: Connection, streams: Sequence[tuple[str, int]], registrar: str) -> list[str]:
    """Take back that they lapsed; returns the ids of those that had."""
    ids, generations = [one for one, _ in streams], [generation for _, generation in streams]
    values = {"ids": ids, "generations": generations, "registrar": registrar}
    return [row.replica_id for row in connection.execute(_REVIVE, values)]


def snapshot_xmin(connection: Connection) -> int:
    """The oldest transaction that still runs: all changes before it can be seen now."""
    query = text("SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint)")
    return int(connection.execute(query).scalar_one())


def live(connection: Connection) -> list[Any]:
    """Every live registration, with its key's name, role and models."""
    return list(connection.execute(text(f"{_JOINED} WHERE r.ended_at IS NULL")))


def changed(connection: Connection, since: int) -> list[Any]:
    """Registrations, ended ones too, that a transaction from ``since`` on has changed."""
    query = text(f"{_JOINED} WHERE r.changed >= CAST(CAST(:since AS text) AS xid8)")
    return list(connection.execute(query, {"since": str(since)}))


def read(connection: Connection, replica_id: str) -> Any | None:
    return connection.execute(text(f"{_JOINED} WHERE r.replica_id = :id"), {"id": replica_id}).first()


def page(connection: Connection, *, after: str | None, limit: int, ended: bool) -> list[Any]:
    """Up to ``limit`` registrations by id; with ``ended`` also those that are no more."""
    query = text(
        f"{_JOINED} WHERE (:ended OR r.ended_at IS NULL) AND (CAST(:after AS text) IS NULL OR r.replica_id > :after)"
        " ORDER BY r.replica_id LIMIT :limit"
    )
    return list(connection.execute(query, {"after": after, "limit": limit, "ended": ended}))


def count(connection: Connection, *, ended: bool) -> int:
    query = text("SELECT count(*) FROM registrations WHERE :ended OR ended_at IS NULL")
    return int(connection.execute(query, {"ended": ended}).scalar_one())


def of_node(connection: Connection, node: str) -> list[Any]:
    """What is needed to probe the live registrations that the agent of that host looks after.

    Those are what its API took, and what the API of a host took that has no agent, unless loopback is meant there.
    """
    query = text(
        f"""
SELECT replica_id, generation, addresses, address, port, health, speaks FROM registrations r
WHERE ended_at IS NULL AND (node = :node OR (
    NOT EXISTS (SELECT 1 FROM nodes n WHERE n.name = r.node
                AND n.heartbeat_at > hostler_now() - make_interval(secs => {AGENT_SILENT_S}))
    AND address <> '::1' AND address NOT LIKE '127.%'))
"""
    )
    return list(connection.execute(query, {"node": node}))


def answering(connection: Connection) -> list[Any]:
    """Live registrations that answer over HTTP, with the models they name, and what their keys may serve."""
    query = text(
        f"""
SELECT r.replica_id, r.generation, r.owner, r.node, r.address, r.port, k.role, k.models AS key_models,
       extract(epoch FROM r.registered_at)::float8 AS since,
       ARRAY(SELECT DISTINCT c->>'model' FROM json_array_elements(r.capabilities) AS c
             WHERE json_typeof(c->'model') = 'string' AND c->>'model' <> '') AS models
FROM registrations r JOIN keys k ON k.id = r.owner
WHERE r.ended_at IS NULL AND r.health = 'healthy' AND r.speaks = 'http' AND k.revoked_at IS NULL
  AND (k.expires_at IS NULL OR k.expires_at > hostler_now()) AND NOT {_ROW_LEASED}
"""
    )
    return list(connection.execute(query))


def record_health(connection: Connection, facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write what probes showed of (replica_id, generation), in one statement; returns the ids."""
    query = text(
        """
UPDATE registrations r SET health = f.health, speaks = coalesce(f.speaks, r.speaks), message = left(f.message, 500),
    address = f.address, checked_at = hostler_now(),
    answered_at = CASE WHEN f.health = 'healthy' THEN hostler_now() ELSE r.answered_at END
FROM jsonb_to_recordset(CAST(:facts AS jsonb))
    AS f(replica_id text, generation bigint, health text, speaks text, message text, address text)
WHERE r.replica_id = f.replica_id AND r.generation = f.generation AND r.ended_at IS NULL
RETURNING r.replica_id
"""
    )
    return [row.replica_id for row in connection.execute(query, {"facts": json.dumps([dict(one) for one in facts])})]


def _ended(connection: Connection, statement: Any, reason: str, **values: Any) -> list[str]:
    values = {"actor": None, "request_id": "", "reason": reason, **values}
    return [row.replica_id for row in connection.execute(statement, values)]
