"""HAProxy's figures for Prometheus, with the model and pool of each replica beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from app.errors import GatewayDown
from app.haproxy.shown import number
from app.settings import Settings
from app.usecases.routes import all_figures, read_table

#: A server's figures by HAProxy's column: (our name, what it is). Those of a replica in two routes are added up.
_GAUGES = {
    "scur": ("hostler_gateway_requests_in_flight", "Requests that a replica is answering."),
    "qcur": ("hostler_gateway_requests_queued", "Requests that wait for this replica."),
}
_COUNTERS = {
    "stot": ("hostler_gateway_requests", "Requests that were sent to a replica, tries included."),
    "econ": ("hostler_gateway_connect_errors", "Connections that a replica did not take."),
    "eresp": ("hostler_gateway_response_errors", "Answers that broke off or were none."),
    "wretr": ("hostler_gateway_retries", "Tries after the first."),
    "wredis": ("hostler_gateway_redispatches", "Requests that another replica was asked in this one's stead."),
    "cli_abrt": ("hostler_gateway_caller_aborts", "Requests whose caller went away."),
    "srv_abrt": ("hostler_gateway_replica_aborts", "Answers that the replica broke off."),
    "bin": ("hostler_gateway_request_bytes", "Bytes that were sent to a replica."),
    "bout": ("hostler_gateway_answer_bytes", "Bytes that a replica answered."),
    "chkdown": ("hostler_gateway_taken_out", "How often checks took a replica out."),
}
_LABELS = ("model", "pool", "replica_id")
_FRONTENDS = {
    "scur": ("hostler_gateway_connections", "Connections that are open at a door of the gateway."),
    "stot": ("hostler_gateway_connections_taken", "Connections that a door of the gateway has taken."),
    "req_tot": ("hostler_gateway_door_requests", "Requests that came through a door of the gateway."),
    "hrsp_4xx": ("hostler_gateway_door_answers_4xx", "Answers of 400 to 499, the gateway's own too."),
    "hrsp_5xx": ("hostler_gateway_door_answers_5xx", "Answers of 500 and more, the gateway's own too."),
}


def families(settings: Settings) -> Iterator[Metric]:
    """All of them; where HAProxy is away only that it is (``hostler_gateway_up`` 0)."""
    up = GaugeMetricFamily("hostler_gateway_up", "Whether this host's HAProxy answers.")
    try:
        table, rows = read_table(settings), all_figures(settings)
    except GatewayDown:
        up.add_metric((), 0)
        yield up
        return
    up.add_metric((), 1)
    yield up
    members = table["members"]
    servers = [row for row in rows if row["svname"] in members]
    yield _states(servers, members)
    for column, (name, text) in _GAUGES.items():
        yield _filled(GaugeMetricFamily(name, text, labels=_LABELS), column, servers, members)
    for column, (name, text) in _COUNTERS.items():
        yield _filled(CounterMetricFamily(name, text, labels=_LABELS), column, servers, members)
    yield _queues(rows, table["routes"])
    yield from _doors([row for row in rows if row["svname"] == "FRONTEND"])


def _states(servers: list[Mapping[str, str]], members: Mapping[str, Mapping[str, str]]) -> Metric:
    family = GaugeMetricFamily(
        "hostler_gateway_replica_up", "1 when the gateway sends requests to this replica.", labels=_LABELS
    )
    up: dict[tuple[str, str, str], int] = {}
    for row in servers:
        key = _labels(members[row["svname"]])
        up[key] = max(up.get(key, 0), int(row["status"].startswith(("UP", "no check"))))
    for key, value in up.items():
        family.add_metric(key, value)
    return family


def _filled(
    family: GaugeMetricFamily | CounterMetricFamily,
    column: str,
    servers: list[Mapping[str, str]],
    members: Mapping[str, Mapping[str, str]],
) -> Metric:
    sums: dict[tuple[str, str, str], int] = {}
    for row in servers:
        key = _labels(members[row["svname"]])
        sums[key] = sums.get(key, 0) + number(row[column])
    for key, value in sums.items():
        family.add_metric(key, value)
    return family


def _queues(rows: list[Mapping[str, str]], routes: list[Mapping[str, str]]) -> Metric:
    family = GaugeMetricFamily(
        "hostler_gateway_route_queued", "Requests of a route that wait for any of its replicas.", labels=("model",)
    )
    models = {route["slot"]: route["model"] for route in routes if route["slot"] and route["kind"] == "model"}
    for row in rows:
        if row["svname"] == "BACKEND" and row["pxname"] in models:
            family.add_metric((models[row["pxname"]],), number(row["qcur"]))
    return family


def _doors(rows: list[Mapping[str, str]]) -> Iterator[Metric]:
    for column, (name, text) in _FRONTENDS.items():
        kind = GaugeMetricFamily if column == "scur" else CounterMetricFamily
        family = kind(name, text, labels=("door",))
        for row in rows:
            family.add_metric((row["pxname"],), number(row[column]))
        yield family


def _labels(member: Mapping[str, str]) -> tuple[str, str, str]:
    return member["model"], member["pool"], member["id"]
