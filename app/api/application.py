"""The web application, put together: conventions first, then the routes, then their documentation."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from flask import Flask, Request, Response, g, request

from app import log
from app.api import auth, converters, openapi, problem, registry
from app.api.inference import chat
from app.api.inference import routes as inference
from app.api.v1 import (
    events,
    gateways,
    hub,
    keys,
    models,
    nodes,
    pools,
    recipes,
    registrations,
    replicas,
    service_groups,
    service_views,
    stack,
    tasks,
    vectors,
    vllm,
)
from app.domain.tasks import TaskKind
from app.doorbell.queues import queue_for
from app.errors import Unavailable
from app.metrics import Metrics, record_request
from app.settings import Settings
from app.usecases.chat import Chat
from app.usecases.context import Context
from app.usecases.health import Health

#: Connections of one process; requests beyond it wait their turn for a moment. More would not make Postgres faster.
POOL_SIZE = 12

process_log = logging.getLogger(__name__)
access_log = logging.getLogger("app.access")

BLUEPRINTS = (
    replicas.blueprint,
    # the routes of services.py too
    service_views.blueprint,
    service_groups.blueprint,
    tasks.blueprint,
    pools.blueprint,
    models.blueprint,
    vectors.blueprint,
    hub.blueprint,
    vllm.blueprint,
    recipes.blueprint,
    nodes.blueprint,
    gateways.blueprint,
    events.blueprint,
    keys.blueprint,
    registry.blueprint,
    registrations.blueprint,
    stack.blueprint,
    inference.blueprint,
    chat.blueprint,
)


class Application(Flask):
    """Flask without coroutines: it would ask of each function at each request whether it is one."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        return func


def make_application(settings: Settings) -> Flask:
    """A Flask application for one process."""
    log.configure(settings, "web")
    app = Application("app", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    # one path, one route: no redirect that loses a body
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    context = Context.open(settings, pool_size=POOL_SIZE, overflow=0, application_name="hostler-web")
    app.extensions["hostler"] = context
    app.extensions["hostler-chat"] = Chat(context)
    app.extensions["hostler-health"] = Health(context)
    app.extensions["hostler-metrics"] = Metrics(context)
    problem.install(app)
    app.before_request(_start_clock)
    auth.install(app)
    # after_request functions run last to first: this one sees the finished answer
    app.after_request(_record)
    converters.install(app)
    api = openapi.make_api(app)
    converters.document(api)
    for blueprint in BLUEPRINTS:
        api.register_blueprint(blueprint)
    openapi.install(app, api)
    return app


def warm_up(app: Flask) -> None:
    """Pay now what a process's first create would pay: its connections, and a publish that loads half of Celery.

    The ring finds nothing to do, which is nothing new for a worker.
    """
    context: Context = app.extensions["hostler"]
    try:
        queue = queue_for(TaskKind.CREATE, context.settings.default_pool, None)
        context.doorbell.ring_now(TaskKind.CREATE, queue, pool=context.settings.default_pool)
    except Unavailable as error:
        process_log.warning("started without its database: %s", error)


def _start_clock() -> None:
    g.started = time.perf_counter()


def _record(response: Response) -> Response:
    seconds = time.perf_counter() - g.get("started", time.perf_counter())
    record_request(request.method, _route(request), response.status_code, seconds)
    # what was changed, by whom and by which request is in the events; a line for each success would say less
    level = logging.DEBUG if response.status_code < 400 else logging.INFO
    if access_log.isEnabledFor(level):
        access_log.log(level, "%s %s %d %.1f ms", request.method, request.path, response.status_code, seconds * 1000)
    return response


def _route(current: Request) -> str:
    return current.url_rule.rule if current.url_rule is not None else "unknown"
