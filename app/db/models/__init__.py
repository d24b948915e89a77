"""One file per noun. The schema is the specification: what must not be, it forbids."""

from app.db.metadata import metadata
from app.db.models.attempts import attempts
from app.db.models.events import events, lifecycle_edges
from app.db.models.gateways import drains, gateway_servers, gateways
from app.db.models.idempotency import idempotency
from app.db.models.keys import keys
from app.db.models.leases import leases, units
from app.db.models.logs import log_chunks, log_copies
from app.db.models.models import models
from app.db.models.nodes import nodes, workers
from app.db.models.pools import backends, pools
from app.db.models.registrations import registrars, registrations
from app.db.models.replicas import replica_counts, replica_labels, replicas
from app.db.models.services import service_hints, service_members, service_revisions, services
from app.db.models.stack import clock, stack
from app.db.models.sweeps import sweeps
from app.db.models.tasks import tasks
from app.db.models.tunnels import tunnels

__all__ = [
    "attempts",
    "backends",
    "clock",
    "drains",
    "events",
    "gateway_servers",
    "gateways",
    "idempotency",
    "keys",
    "leases",
    "lifecycle_edges",
    "log_chunks",
    "log_copies",
    "metadata",
    "models",
    "nodes",
    "pools",
    "registrars",
    "registrations",
    "replica_counts",
    "replica_labels",
    "replicas",
    "service_hints",
    "service_members",
    "service_revisions",
    "services",
    "stack",
    "sweeps",
    "tasks",
    "tunnels",
    "units",
    "workers",
]
