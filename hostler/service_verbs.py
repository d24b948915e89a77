"""What can be asked of services, for both clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic

from hostler import waiting
from hostler.feed import Feed
from hostler.wire import API, READ_TIMEOUT_S, Body, Call, Words, api_path, change, text_of

SERVICES = f"{API}/services"
#: Longest wait for an answer to a prompt.
PROMPT_TIMEOUT_S = 300.0


class ServiceVerbs(Generic[Body, Words]):
    """The verbs of services. ``ref`` is a service's id or its name: the running one's, else the last one's."""

    def call(self, call: Call) -> Body:
        """Send any request of the API and return its body."""
        raise NotImplementedError

    def _run(self, steps: Any) -> Body:
        raise NotImplementedError

    def _run_text(self, steps: Any) -> Words:
        raise NotImplementedError

    def create_service(
        self, body: Mapping[str, Any], *, idempotency_key: str | None = None, wait_s: float = 0.0
    ) -> Body:
        """Run a recipe. ``wait_s`` makes the request itself wait until all replicas are ready."""
        return self.call(_asked("POST", SERVICES, dict(body), wait_s, idempotency_key))

    def list_services(self, **filters: Any) -> Body:
        """One page. Filters: ``status, name, recipe, pool, label, owner, limit, cursor``."""
        return self.call(Call("GET", SERVICES, filters))

    def get_service(self, ref: str) -> Body:
        return self.call(Call("GET", api_path("services", ref)))

    def service_status(self, ref: str) -> Body:
        """How its replicas stand, together (``overall_status``) and each (``replica_statuses``)."""
        return self.call(Call("GET", api_path("services", ref, "status")))

    def cancel_service(self, ref: str, *, wait_s: float = 0.0) -> Body:
        """Stop all its replicas; record and logs stay."""
        return self.call(_asked("POST", api_path("services", ref, "status"), {"status": "cancelled"}, wait_s))

    def scale_service(self, ref: str, replicas: int, *, wait_s: float = 0.0) -> Body:
        """Have so many replicas. Those that are unhealthy or least busy go first, drained."""
        return self.call(_asked("POST", api_path("services", ref, "scale"), {"replicas": replicas}, wait_s))

    def update_service(self, ref: str, changes: Mapping[str, Any], *, wait_s: float = 0.0) -> Body:
        """Change what it runs: a new revision takes over step by step. ``changes["config"]`` is merged in."""
        return self.call(_asked("PATCH", api_path("services", ref), dict(changes), wait_s))

    def rollback_service(self, ref: str, *, revision: int | None = None, wait_s: float = 0.0) -> Body:
        """Go back to ``revision``, else to the last good one before the present."""
        body = {} if revision is None else {"revision": revision}
        return self.call(_asked("POST", api_path("services", ref, "rollback"), body, wait_s))

    def pause_service(self, ref: str) -> Body:
        """Take no further step of an update."""
        return self.call(change("POST", api_path("services", ref, "pause"), {}))

    def resume_service(self, ref: str) -> Body:
        """Go on with a paused update."""
        return self.call(change("POST", api_path("services", ref, "resume"), {}))

    def service_revisions(self, ref: str) -> Body:
        """What it was asked to run, newest first."""
        return self.call(Call("GET", api_path("services", ref, "revisions")))

    def service_events(self, ref: str, **filters: Any) -> Body:
        """What was decided about it, oldest first, with cause and actor."""
        return self.call(Call("GET", api_path("services", ref, "events"), filters))

    def service_logs(self, ref: str, *, replica: str | None = None, tail: int | None = None) -> Words:
        """What its replicas wrote, each line with the replica's id before it; the last ``tail`` lines of each."""
        query = {"replica": replica, "tail": tail}
        return self._run_text(text_of(Call("GET", api_path("services", ref, "logs"), query)))

    def service_metrics(self, ref: str) -> Words:
        """The metrics of its ready replicas as Prometheus text."""
        return self._run_text(text_of(Call("GET", api_path("services", ref, "metrics"))))

    def service_models(self, ref: str) -> Body:
        """The models that a service has loaded."""
        return self.call(Call("GET", api_path("vllm", ref, "models")))

    def prompt_service(self, ref: str, prompt: str, **options: Any) -> Body:
        """Send a prompt to whichever replica is free: ``text``, ``routed_to``, ``usage``.

        ``options``: ``max_tokens, temperature, top_p, seed, stop, system_prompt, model``.
        """
        body = {"prompt": prompt, **options}
        return self.call(Call("POST", api_path("vllm", ref, "prompt"), body=body, read_timeout_s=PROMPT_TIMEOUT_S))

    def service_schema(self) -> Body:
        """The JSON Schema of a file of services."""
        return self.call(Call("GET", f"{API}/schemas/service.json"))

    def wait_service(self, ref: str, *, wanted: str = "running", timeout_s: float | None = None) -> Body:
        """Wait until it is ``running`` (all replicas ready) or ``stopped`` (all seen gone); its record.

        Raises ServiceFailed as soon as that cannot happen any more, TimedOut after ``timeout_s`` seconds.
        """
        call = Call("GET", api_path("services", ref))
        return self._run(waiting.service_steps(call, ref, wanted, timeout_s))


def service_events_feed(ref: str, *, after: str | None = None) -> Feed:
    """What is decided about a service, as it is decided."""
    return Feed(Call("GET", api_path("services", ref, "events")), last_id=after)


def service_logs_feed(ref: str, *, replica: str | None = None, tail: int | None = None) -> Feed:
    """What a service's replicas write, until it has ended."""
    query = {"follow": 1, "replica": replica, "tail": tail}
    return Feed(Call("GET", api_path("services", ref, "logs"), query), ends_when_closed=True, without_place={"tail": 0})


def _asked(method: str, path: str, body: Mapping[str, Any], wait_s: float, idempotency_key: str | None = None) -> Call:
    return change(
        method,
        path,
        dict(body),
        idempotency_key=idempotency_key,
        headers={"Prefer": f"wait={int(wait_s)}"},
        read_timeout_s=READ_TIMEOUT_S + wait_s,
    )
