"""The counters of several replicas as one page: each is asked through the gateway, and those that answer are shown."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from flask import Response, g

from app.api.inference.caller import Caller, CallerLeft
from app.api.inference.conversation import SEEN_LOOK_S, SEEN_S
from app.api.inference.door import Door
from app.api.inference.refusals import is_nowhere, refusal_of
from app.domain import exposition
from app.errors import NoReadyReplica, ReplicaBadAnswer, ReplicaTooSlow
from app.stack.layout import Layout
from app.usecases.context import Context

#: Where engines count.
PATH = "/metrics"
#: Longest wait for all of them: a scraper waits ten seconds by default.
PATIENCE_S = 8.0
AT_ONCE = 16
LONGEST_PAGE = 16 * 1024 * 1024
#: Whether a replica's counters are on the page.
ANSWERED = "hostler_replica_metrics_up"


def answer(ctx: Context, service_id: str, members: Sequence[Mapping[str, Any]]) -> Response:
    """The page of a service's ready ``members`` (``replica_id, port``), by the labels ``service`` and ``replica``.

    Raises NoReadyReplica when there is none to ask, ReplicaBadAnswer when none answers.
    """
    asked = [str(member["replica_id"]) for member in members if member.get("port")]
    if members and not asked:
        raise NoReadyReplica(
            f"The {len(members)} ready replicas of service {service_id} listen nowhere: their pool runs nothing.",
            retry_after_s=30,
        )
    if not asked:
        raise NoReadyReplica(
            f"No replica of service {service_id} is ready. `hostler service status {service_id}` says why.",
            retry_after_s=2,
        )
    pages = _read(ctx, asked)
    if not any(pages.values()):
        raise ReplicaBadAnswer(
            f"None of the {len(asked)} ready replicas of service {service_id} has told its metrics."
            f" See `hostler service logs {service_id}`."
        )
    told = [f"# HELP {ANSWERED} Whether this replica told its metrics.\n# TYPE {ANSWERED} gauge\n"]
    by_label = [({"service": service_id, "replica": replica_id}, page) for replica_id, page in pages.items()]
    told += [exposition.sample(ANSWERED, labels, str(int(page is not None))) for labels, page in by_label]
    text = exposition.joined((labels, page) for labels, page in by_label if page is not None)
    return Response("".join(told) + text, content_type=exposition.MIMETYPE)


def _read(ctx: Context, replica_ids: Sequence[str]) -> dict[str, str | None]:
    """The page of each, None where there is none; all of it within PATIENCE_S. Under gevent threads are greenlets.

    Raises GatewayDown.
    """
    door, caller = Door(Layout(ctx.settings.state_dir).inside_socket), Caller.of_request()
    headers = {"X-Request-Id": g.request_id}

    soon = time.monotonic() + SEEN_S

    def one(replica_id: str) -> str | None:
        try:
            while True:
                with door.get(("X-Hostler-Replica", replica_id), PATH, headers, caller) as got:
                    if got.status == 200:
                        return got.body(LONGEST_PAGE).decode("utf-8", "replace")
                    # one that was written down as ready is routed to within a moment
                    if not is_nowhere(refusal_of(got)) or time.monotonic() >= soon:
                        return None
                time.sleep(SEEN_LOOK_S)
        except (ReplicaBadAnswer, ReplicaTooSlow, CallerLeft):
            return None

    # one that never ends its answer must not keep the others' from being shown
    late = threading.Timer(PATIENCE_S, caller.leave)
    late.daemon = True
    late.start()
    try:
        with ThreadPoolExecutor(min(AT_ONCE, len(replica_ids)), thread_name_prefix="metrics") as pool:
            return dict(zip(replica_ids, pool.map(one, replica_ids), strict=True))
    finally:
        late.cancel()
