"""Services as users ask for them. Each change is one transaction, which already takes the first steps towards it.

``ref`` is a service's id or its name: the running one's, else the last one's of that name. What it looks like is
``service_views``'.
"""

from __future__ import annotations

from app.usecases.service_asking import ServiceOutcome
from app.usecases.service_cancels import cancel, cancel_task
from app.usecases.service_creates import create, plan_create
from app.usecases.service_scaling import scale
from app.usecases.service_updates import pause, resume, rollback, update
from app.usecases.service_views import find, get, page, ready_members, revisions, status, targets

__all__ = [
    "ServiceOutcome",
    "cancel",
    "cancel_task",
    "create",
    "find",
    "get",
    "page",
    "pause",
    "plan_create",
    "ready_members",
    "resume",
    "revisions",
    "rollback",
    "scale",
    "status",
    "targets",
    "update",
]
