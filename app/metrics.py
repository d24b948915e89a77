"""Prometheus: what this process answered, and what the database holds (the same whichever process is asked).

With PROMETHEUS_MULTIPROC_DIR set (the stack does) the counters of all API processes are added up.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from app import inference_metrics
from app.errors import Unavailable
from app.usecases import gateway_figures
from app.usecases.context import Context
from app.usecases.health import Counts, count

#: Scrapes within this time share one look at the database.
CACHED_S = 2.0
#: From a read out of memory to a create that waits.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 300)

_process = CollectorRegistry()
requests_total = Counter(
    "hostler_http_requests", "Requests answered.", ("method", "route", "status"), registry=_process
)
request_seconds = Histogram(
    "hostler_http_request_seconds", "Time to answer.", ("method", "route"), registry=_process, buckets=BUCKETS
)


def record_request(method: str, route: str, status: int, seconds: float) -> None:
    """Count one answer. ``route`` is the rule, not the path: a path per replica would never end."""
    _label(requests_total, method, route, str(status)).inc()
    _label(request_seconds, method, route).observe(seconds)


class Metrics(Collector):
    """What `/metrics` shows; one per process."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._until = 0.0
        self._counts: Counts | None = None

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            process = CollectorRegistry()
            MultiProcessCollector(process)
            families = list(process.collect())
        else:
            families = [*_process.collect(), *inference_metrics.registry.collect()]
        families, inference = inference_metrics.split(families)
        stack = CollectorRegistry()
        stack.register(self)
        return generate_latest(_Collected(families)) + inference.encode() + generate_latest(stack)

    def collect(self) -> Iterator[Metric]:
        """The gateway's figures, and gauges from the database."""
        yield from gateway_figures.families(self._context.settings)
        up = GaugeMetricFamily("hostler_database_up", "Whether the database answers.")
        try:
            counts = self._read()
        except Unavailable:
            up.add_metric((), 0)
            yield up
            return
        up.add_metric((), 1)
        yield up
        yield _family("hostler_replicas", "Replicas not gone yet.", ("pool", "state"), counts.replicas)
        yield _family("hostler_tasks", "Open tasks.", ("pool", "kind", "state"), counts.tasks)
        yield _family("hostler_pool_slots", "Slots of a pool.", ("pool",), counts.slots)
        yield _family("hostler_pool_slots_used", "Slots that are leased.", ("pool",), counts.slots_used)

    def describe(self) -> list[GaugeMetricFamily]:
        # asked at registration; the database need not be
        return []

    def _read(self) -> Counts:
        with self._lock:
            if self._counts is None or self._until <= time.monotonic():
                self._counts = count(self._context)
                self._until = time.monotonic() + CACHED_S
            return self._counts


class _Collected(CollectorRegistry):
    """What was collected already."""

    def __init__(self, families: list[Metric]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)


def _family(
    name: str, text: str, labels: tuple[str, ...], rows: list[tuple[tuple[str, ...], int]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, number in rows:
        family.add_metric(values, number)
    return family


def _label(metric: Any, *values: str) -> Any:
    """``metric.labels`` takes a lock and builds a key on every call; the few children there are can be kept."""
    child = _children.get((metric, values))
    if child is None:
        child = _children[metric, values] = metric.labels(*values)
    return child


_children: dict[tuple[Any, tuple[str, ...]], Any] = {}
