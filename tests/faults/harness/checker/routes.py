"""HAProxy holds what is ready and nothing else, and no port that it may route to is another attempt's."""

from __future__ import annotations

from collections.abc import Iterator

from tests.faults.harness.checker.evidence import Evidence
from tests.faults.harness.facts import Finding
from tests.faults.harness.recorders import routes

#: States in which a replica takes requests; one that cannot be asked is tried when no other answers.
TAKES = frozenset({"ready", "unreachable"})


def check_routes(found: Evidence) -> Iterator[Finding]:
    for line in routes.read(found.run.folder):
        if line["at"] < found.run.begun_at:
            continue
        if line["op"] == "leased":
            told = {"server": line["server"], "port": line["port"], "leased to": line["to"]}
            yield Finding("routes", "a port was leased to another attempt while a gateway may route to it", told)
        elif line["op"] == "unwritten":
            told = {"server": line["server"]}
            yield Finding("routes", "HAProxy held a server that is not written down", told)
    if found.run.converged and found.routed is not None:
        yield from _judge_rest(found)


def _judge_rest(found: Evidence) -> Iterator[Finding]:
    taking = {one.name: one for one in found.routed or () if one.takes}
    # who is on a network that only a tunnel leads to is reached at its local end
    ends = {tunnel.attempt_id: tunnel.port for tunnel in found.rows.tunnels}
    ports = {(one.replica_id, one.number): ends.get(one.id) for one in found.rows.open_attempts()}
    for server in taking.values():
        replica = found.rows.replicas.get(server.replica)
        state = replica.state if replica is not None else "unknown"
        told = {"server": server.name, "backend": server.backend, "state": state}
        if state not in TAKES or replica.attempt != server.attempt:
            yield Finding("routes", "HAProxy routes to what is not ready", told)
        elif (port := ports.get((replica.id, replica.attempt)) or replica.port) != server.port:
            told |= {"port": port, "routed to": server.port}
            yield Finding("routes", "HAProxy routes to another port than the replica's", told)
    places = found.run.stack.places
    for replica in found.rows.replicas.values():
        if replica.state != "ready" or replica.port is None:
            continue
        if places is not None and replica.node == places.node:
            continue  # at a loopback address, which for a gateway of this host would be its own
        if f"{replica.id}-{replica.attempt}" not in taking:
            yield Finding(
                "routes", "a ready replica is not routed", {"replica": replica.id, "attempt": replica.attempt}
            )
