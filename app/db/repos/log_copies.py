"""Copies of logs for readers on other hosts: readers join, renew and read; one agent takes, appends and answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

#: A copy goes when nobody has asked for it for so long.
WANTED_S = 30.0
#: An agent that has not renewed it for so long has lost a copy to another one.
TAKEN_S = 5.0
#: Different places of one log that are read at once.
MOST_COPIES = 16
#: Chunks that a reader takes at once.
CHUNKS = 4

# of two who join at one time the second finds the first one's copy
_LOCK = text("SELECT pg_advisory_xact_lock(:space, CAST(:attempt_id % 2147483647 AS integer))")
_LOCK_SPACE = 6609

_FIND = text(
    """
SELECT l.id, coalesce(c.starts + octet_length(c.data), 0) AS position
FROM log_copies l LEFT JOIN log_chunks c ON c.copy_id = l.id AND c.place = :place AND CAST(:place AS text) <> ''
WHERE l.attempt_id = :attempt_id AND l.wanted_until > hostler_now()
  AND (c.copy_id IS NOT NULL OR (l.begins = :place
       -- the last lines of a while ago are the last ones no more, and what came since is long
       AND (l.begins NOT LIKE 'tail %' OR l.wanted_until > hostler_now() + make_interval(secs => :fresh_s))
       AND (l.size_bytes = 0
       OR EXISTS (SELECT 1 FROM log_chunks f WHERE f.copy_id = l.id AND f.starts = 0))))
ORDER BY position DESC, l.id LIMIT 1
"""
)
_MAKE = text(
    """
INSERT INTO log_copies (attempt_id, begins, place, wanted_until)
SELECT a.id, :place, :place, hostler_now() + make_interval(secs => :wanted_s) FROM attempts a WHERE a.id = :attempt_id
  AND (SELECT count(*) FROM log_copies l WHERE l.attempt_id = a.id AND l.wanted_until > hostler_now()) < :most
RETURNING id, 0 AS position
"""
)
_RENEW = text(
    """
UPDATE log_copies SET wanted_until = hostler_now() + make_interval(secs => :wanted_s), asked = asked + :ask,
    read_bytes = greatest(read_bytes, :position)
WHERE id = :id RETURNING asked
"""
)
_NEWS = text(
    """
SELECT l.size_bytes, l.read_bytes, l.answered, l.rest, l.message, l.began,
    coalesce(l.taken_until > hostler_now(), false) AS is_taken, c.starts, c.place, c.data, c.gap
FROM log_copies l LEFT JOIN LATERAL (
    SELECT * FROM log_chunks WHERE copy_id = l.id AND starts >= :position ORDER BY starts LIMIT :chunks
) c ON true
WHERE l.id = :id ORDER BY c.starts
"""
)

_BEGIN_AT = text("UPDATE log_copies SET place = :place, began = :place WHERE id = :id AND place = :words")
_FORGET = text("DELETE FROM log_copies WHERE wanted_until < hostler_now()")
# what a host's own backends keep is read there; what belongs to no host by whichever agent serves its pool
_TAKE = text(
    """
UPDATE log_copies SET taken_by = :agent, taken_until = hostler_now() + make_interval(secs => :taken_s)
WHERE id IN (
    SELECT l.id FROM log_copies l JOIN attempts a ON a.id = l.attempt_id
    WHERE l.wanted_until > hostler_now()
      AND (l.taken_until IS NULL OR l.taken_until < hostler_now()
           OR (l.taken_by = :agent AND l.taken_until < hostler_now() + make_interval(secs => :taken_s / 2)))
      AND (a.node = :node OR (a.node IS NULL AND EXISTS (
           SELECT 1 FROM nodes n WHERE n.name = :node AND (n.pools IS NULL OR a.pool = ANY(n.pools)))))
    FOR UPDATE OF l SKIP LOCKED)
"""
)
_TAKEN = text(
    """
SELECT l.*, a.name AS attempt_name, a.backend, a.backend_ref, a.launching_at, a.released_at, r.spec
FROM log_copies l JOIN attempts a ON a.id = l.attempt_id JOIN replicas r ON r.id = a.replica_id
WHERE l.taken_by = :agent AND l.taken_until > hostler_now() AND l.wanted_until > hostler_now()
"""
)
_GIVE_BACK = text("UPDATE log_copies SET taken_until = NULL WHERE taken_by = :agent")
_TAKE_OVER = text("UPDATE log_copies SET taken_until = NULL WHERE starts_with(taken_by, :node || '/')")
# a copier that was frozen finds another place than the one it read from
_GROW = text(
    """
UPDATE log_copies SET place = :place, size_bytes = size_bytes + octet_length(:data), rest = '', message = ''
WHERE id = :id AND place = :from_place AND size_bytes = :starts RETURNING read_bytes
"""
)
_ADD = text("INSERT INTO log_chunks (copy_id, starts, place, data, gap) VALUES (:id, :starts, :place, :data, :gap)")
_TRIM = text(
    "DELETE FROM log_chunks WHERE copy_id = :id AND starts + octet_length(data) <= :read_bytes - :keep_bytes"
    " AND starts < :read_bytes - :keep_bytes"
)
_ANSWER = text(
    """
UPDATE log_copies SET answered = greatest(answered, :answered), rest = :rest, message = ''
WHERE id = :id AND place = :place AND (answered < :answered OR rest <> :rest OR message <> '')
"""
)
_COMPLAIN = text("UPDATE log_copies SET message = :message WHERE id = :id AND message <> :message")


def join(connection: Connection, attempt_id: int, place: str) -> Any | None:
    """A copy in which the log goes on at ``place``, and its ``position`` there; None where no more can be made."""
    values = {"attempt_id": attempt_id, "place": place, "fresh_s": WANTED_S * 2 / 3}
    connection.execute(_LOCK, {"space": _LOCK_SPACE, "attempt_id": attempt_id})
    return (
        connection.execute(_FIND, values).first()
        or connection.execute(_MAKE, {**values, "most": MOST_COPIES, "wanted_s": WANTED_S}).first()
    )


def renew(connection: Connection, copy_id: int, position: int, *, ask: bool) -> int | None:
    """Say that it is read still, and how far; what was asked so far, with ``ask`` one more. None: it is gone."""
    values = {"id": copy_id, "position": position, "ask": int(ask), "wanted_s": WANTED_S}
    return connection.execute(_RENEW, values).scalar()


def news(connection: Connection, copy_id: int, position: int) -> Sequence[Any]:
    """How the copy stands, with its next chunks from ``position`` on (one row without any); none: it is gone."""
    return list(connection.execute(_NEWS, {"id": copy_id, "position": position, "chunks": CHUNKS}))


def take(connection: Connection, agent: str, node: str) -> Sequence[Any]:
    """What this agent has to copy now."""
    connection.execute(_FORGET)
    connection.execute(_TAKE, {"agent": agent, "node": node, "taken_s": TAKEN_S})
    return list(connection.execute(_TAKEN, {"agent": agent}))


def give_back(connection: Connection, agent: str) -> None:
    """Let another agent take what this one has."""
    connection.execute(_GIVE_BACK, {"agent": agent})


def take_over(connection: Connection, node: str) -> None:
    """What earlier agents of this host had can be taken at once."""
    connection.execute(_TAKE_OVER, {"node": node})


def begin_at(connection: Connection, copy_id: int, words: str, place: str) -> bool:
    """Where a copy begins whose ``begins`` are ``words``; False when somebody else said so before."""
    return bool(connection.execute(_BEGIN_AT, {"id": copy_id, "words": words, "place": place}).rowcount)


def append(
    connection: Connection, copy_id: int, starts: int, from_place: str, place: str, data: bytes, gap: bool, keep: int
) -> int | None:
    """Add a chunk; what the quickest reader has read, None when somebody else went on meanwhile.

    Of what was read the last ``keep`` bytes stay, for readers that are slower.
    """
    values = {"id": copy_id, "starts": starts, "from_place": from_place, "place": place, "data": data, "gap": gap}
    read_bytes = connection.execute(_GROW, values).scalar()
    if read_bytes is not None:
        connection.execute(_ADD, values)
        connection.execute(_TRIM, {"id": copy_id, "read_bytes": read_bytes, "keep_bytes": keep})
    return read_bytes


def answer(connection: Connection, copy_id: int, place: str, answered: int, rest: bytes) -> bool:
    """There is no more than ``rest`` behind ``place``: who asked up to ``answered`` has all. Whether that is new."""
    values = {"id": copy_id, "place": place, "answered": answered, "rest": rest}
    return bool(connection.execute(_ANSWER, values).rowcount)


def complain(connection: Connection, copy_id: int, message: str) -> bool:
    """Say why nothing can be copied now. Whether that is new."""
    return bool(connection.execute(_COMPLAIN, {"id": copy_id, "message": message}).rowcount)
