"""What the API can be asked, once for both clients: each verb says which request it is, the client sends it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hostler import waiting
from hostler.feed import Feed
from hostler.generation import model_call
from hostler.inference.discovery import Discovery, find_steps
from hostler.inference.question import question_of
from hostler.registering import Registration
from hostler.service_verbs import ServiceVerbs
from hostler.vector_verbs import VectorVerbs
from hostler.wire import API, READ_TIMEOUT_S, Body, Call, Json, Steps, Words, body_of, change, text_of
from hostler.wire import api_path as _path

#: Longest wait for an inference when nothing else is said.
INFER_TIMEOUT_S = 300.0


class Verbs(ServiceVerbs[Body, Words], VectorVerbs[Body]):
    """The verbs of the control API. Answers are the API's own JSON objects.

    Every verb may raise a HostlerError: NotFound, Conflict, Unauthenticated, Forbidden, Busy or plain ApiError for
    an answer of the API, Unreachable when there is none.
    """

    #: how long each request goes on asking a server that is away: set it while following something for long
    outage_s: float = 0.0
    #: longest wait for any single answer
    _timeout_s: float | None
    _discovery: Discovery

    @property
    def endpoint(self) -> str | None:
        """The server that ``infer`` asks, as it was registered; None until one was found."""
        found = self._discovery.found
        return None if found is None else found.endpoint.text

    @property
    def replica_id(self) -> str | None:
        """The registry's name of that server."""
        found = self._discovery.found
        return None if found is None else found.replica_id

    def _run(self, steps: Steps[Json]) -> Body:
        raise NotImplementedError

    def _run_text(self, steps: Steps[str]) -> Words:
        raise NotImplementedError

    def call(self, call: Call) -> Body:
        """Send any request of the API and return its body."""
        return self._run(body_of(replace(call, outage_s=self.outage_s)))

    # replicas

    def create_replica(
        self, body: Mapping[str, Any], *, idempotency_key: str | None = None, wait_s: float | None = None
    ) -> Body:
        """Ask for a replica. ``wait_s`` makes the request itself wait for *ready* so long; 0 returns at once."""
        headers = {} if wait_s is None else {"Prefer": f"wait={int(wait_s)}"}
        return self.call(
            change(
                "POST",
                f"{API}/replicas",
                dict(body),
                idempotency_key=idempotency_key,
                headers=headers,
                read_timeout_s=READ_TIMEOUT_S + (300 if wait_s is None else wait_s),
            )
        )

    def list_replicas(self, **filters: Any) -> Body:
        """One page. Filters are the API's: ``status, server_mode, model_name, pool, label, limit, cursor ...``."""
        return self.call(Call("GET", f"{API}/replicas", filters))

    def get_replica(self, replica_id: str) -> Body:
        return self.call(Call("GET", _path("replicas", replica_id)))

    def delete_replica(self, replica_id: str) -> Body:
        """Remove the record of a replica that has ended and was seen gone; Conflict before that."""
        return self.call(change("DELETE", _path("replicas", replica_id)))

    def stop_replica(
        self,
        replica_id: str,
        *,
        force: bool = False,
        grace_s: float | None = None,
        drain_s: float | None = None,
        abandon: bool = False,
    ) -> Body:
        """Ask it to end: SIGKILL after ``grace_s`` seconds, or at once when ``force``.

        Where it is routed it takes nothing new and first gets ``drain_s`` seconds for what is in flight. ``abandon``
        (role admin) asks nobody: what cannot be asked is counted as gone, and what it holds is free.
        """
        body: Json = {"force": True} if force else {}
        if abandon:
            body["abandon"] = True
        if drain_s is not None:
            body["drain_s"] = drain_s
        if grace_s is not None:
            body["grace_s"] = grace_s
        return self.call(change("POST", _path("replicas", replica_id, "stop"), body))

    def restart_replica(self, replica_id: str) -> Body:
        """A new attempt of the same spec. Returns at once, with a task."""
        return self.call(change("POST", _path("replicas", replica_id, "restart"), {}, headers={"Prefer": "wait=0"}))

    def diagnose_replica(self, replica_id: str) -> Body:
        """Run the diagnostics again. Returns at once, with a task."""
        return self.call(change("POST", _path("replicas", replica_id, "diagnose"), {}, headers={"Prefer": "wait=0"}))

    def check_replica(self, replica_id: str, *, timeout_s: float = 120.0) -> Body:
        """Probe it now and wait for the verdict: ``healthy``, ``checks``. A task when the wait ran out."""
        return self.call(
            change(
                "POST",
                _path("replicas", replica_id, "health"),
                {"timeout_s": timeout_s},
                headers={"Prefer": f"wait={int(timeout_s)}"},
                read_timeout_s=timeout_s + READ_TIMEOUT_S,
            )
        )

    def replica_logs(self, replica_id: str, *, attempt: int | None = None, tail: int | None = None) -> Words:
        """The output of an attempt (default: the last one); ``tail`` counts lines."""
        call = Call("GET", _path("replicas", replica_id, "logs"), {"attempt": attempt, "tail": tail})
        return self._run_text(text_of(call))

    def replica_events(self, replica_id: str, **filters: Any) -> Body:
        """Its transitions, oldest first, with cause and actor."""
        return self.call(Call("GET", _path("replicas", replica_id, "events"), filters))

    def explain_replica(self, replica_id: str) -> Body:
        """Why it is where it is: rule, evidence, since, position, deadline, command to type."""
        return self.call(Call("GET", _path("replicas", replica_id, "explain")))

    def wait_replica(self, replica_id: str, *, wanted: str = "ready", timeout_s: float | None = None) -> Body:
        """Wait until it is ``ready``, ``stopped``, ``released`` or ``deleted``; its record, empty when deleted.

        Raises ReplicaFailed as soon as that cannot happen any more, TimedOut after ``timeout_s`` seconds.
        """
        call = Call("GET", _path("replicas", replica_id))
        return self._run(waiting.replica_steps(call, replica_id, wanted, timeout_s))

    # tasks

    def list_tasks(self, **filters: Any) -> Body:
        return self.call(Call("GET", f"{API}/tasks", filters))

    def get_task(self, task_id: str, *, wait_s: float = 0.0) -> Body:
        """The task; with ``wait_s`` the answer comes when it ends, or after so many seconds."""
        query = {"wait": int(wait_s)} if wait_s >= 1 else {}
        return self.call(Call("GET", _path("tasks", task_id), query, read_timeout_s=READ_TIMEOUT_S + wait_s))

    def wait_task(self, task_id: str, *, timeout_s: float | None = None) -> Body:
        """The task once it has ended, whichever way. Raises TimedOut after ``timeout_s`` seconds."""
        return self._run(waiting.task_steps(Call("GET", _path("tasks", task_id), {"wait": 30}), task_id, timeout_s))

    def cancel_task(self, task_id: str) -> Body:
        return self.call(change("POST", _path("tasks", task_id, "cancel"), {}))

    # pools

    def list_pools(self, **filters: Any) -> Body:
        return self.call(Call("GET", f"{API}/pools", filters))

    def get_pool(self, name: str) -> Body:
        return self.call(Call("GET", _path("pools", name)))

    def create_pool(self, body: Mapping[str, Any]) -> Body:
        return self.call(change("POST", f"{API}/pools", dict(body)))

    def update_pool(self, name: str, changes: Mapping[str, Any]) -> Body:
        return self.call(change("PATCH", _path("pools", name), dict(changes)))

    def delete_pool(self, name: str) -> Body:
        return self.call(change("DELETE", _path("pools", name)))

    def drain_pool(self, name: str) -> Body:
        """Start nothing more in it; what runs goes on."""
        return self.call(change("POST", _path("pools", name, "drain"), {}))

    def resume_pool(self, name: str) -> Body:
        return self.call(change("POST", _path("pools", name, "resume"), {}))

    # models, nodes, keys

    def list_models(self, **filters: Any) -> Body:
        return self.call(Call("GET", f"{API}/models", filters))

    def get_model(self, name: str) -> Body:
        return self.call(Call("GET", _path("models", name)))

    def create_model(self, body: Mapping[str, Any]) -> Body:
        return self.call(change("POST", f"{API}/models", dict(body)))

    def delete_model(self, name: str) -> Body:
        return self.call(change("DELETE", _path("models", name)))

    def list_recipes(self, **filters: Any) -> Body:
        """Filters ``path`` (a category) and ``name``."""
        return self.call(Call("GET", f"{API}/recipes", filters))

    def get_recipe(self, name: str) -> Body:
        return self.call(Call("GET", _path("recipes", name)))

    def render_recipe(self, name: str, body: Mapping[str, Any]) -> Body:
        """What a create of a service would be: ``config``, ``replicas``, ``pool``, ``model_name``. Changes nothing."""
        return self.call(Call("POST", _path("recipes", name, "render"), body=dict(body), harmless=True))

    def list_nodes(self, **filters: Any) -> Body:
        return self.call(Call("GET", f"{API}/nodes", filters))

    def get_node(self, name: str) -> Body:
        return self.call(Call("GET", _path("nodes", name)))

    def list_routes(self, **filters: Any) -> Body:
        """What the gateway routes where; filters ``kind``, ``name``, ``model``."""
        return self.call(Call("GET", f"{API}/routes", filters))

    def list_gateways(self, **filters: Any) -> Body:
        return self.call(Call("GET", f"{API}/gateways", filters))

    def forget_gateway(self, gateway_id: str) -> Body:
        """Declare a gateway gone that will not come back."""
        return self.call(change("DELETE", _path("gateways", gateway_id)))

    def list_keys(self, **filters: Any) -> Body:
        return self.call(Call("GET", f"{API}/keys", filters))

    def get_key(self, key_id: str) -> Body:
        return self.call(Call("GET", _path("keys", key_id)))

    def create_key(self, body: Mapping[str, Any]) -> Body:
        """Make a key. Its text is in this one answer and nowhere else."""
        return self.call(change("POST", f"{API}/keys", dict(body)))

    def delete_key(self, key_id: str) -> Body:
        return self.call(change("DELETE", _path("keys", key_id)))

    # inference at registered servers

    def infer(
        self,
        model_name: str,
        inputs: Mapping[str, Any],
        retry_on_failure: bool = True,
        *,
        model_version: str = "",
        timeout_s: float | None = None,
    ) -> Body:
        """Ask a server that has this client's ``capability``: name of each output to its values, nested by row.

        ``inputs`` are lists of text, numbers or booleans, or numpy arrays, by name. When the server was away, broke off
        or failed, another is looked for and asked once more. The first may have carried the call out all the same:
        ``retry_on_failure=False`` asks at most once. A call that the server refuses, or does not answer within
        ``timeout_s`` (300) seconds, is never repeated. Raises an InferenceError, NoMatchingServer, MissingExtra.
        """
        longest_s = min((limit for limit in (timeout_s, self._timeout_s) if limit is not None), default=INFER_TIMEOUT_S)
        return self._run(
            self._discovery.infer_steps(
                question_of(model_name, inputs, model_version), retry=retry_on_failure, timeout_s=longest_s
            )
        )

    def find_server(self, capability: Mapping[str, Any]) -> Body:
        """A registered server that has ``capability``: ``endpoint`` and ``replica_id``. Raises NoMatchingServer."""
        return self._run(find_steps(capability))

    def list_registrations(self, **filters: Any) -> Body:
        """One page of registered servers as an operator sees them: owner, health, addresses."""
        return self.call(Call("GET", f"{API}/registrations", filters))

    def get_registration(self, replica_id: str) -> Body:
        return self.call(Call("GET", _path("registrations", replica_id)))

    def delete_registration(self, replica_id: str) -> Body:
        """End a registration, whoever holds it."""
        return self.call(change("DELETE", _path("registrations", replica_id)))

    def list_registered(self, **filters: Any) -> Body:
        """One page of the capability registry: ``replicas``, each with its ``endpoint`` and ``capabilities``."""
        return self.call(Call("GET", "/registry", filters))

    # the model API

    def list_served_models(self) -> Body:
        """The models that can be asked for, and whether a replica of each is ready: ``{"models": [...]}``."""
        return self.call(Call("GET", "/models"))

    def tokenize(self, text: str, *, model_id: str | None = None) -> Body:
        """``{"token_ids": [...], "num_tokens": N}``."""
        return self.call(model_call("/tokenize", {"text": text}, model_id=model_id))

    def tokenize_batch(self, texts: Sequence[str], *, model_id: str | None = None) -> Body:
        """``{"results": [...]}``, one as ``tokenize`` gives for each text, in their order."""
        return self.call(model_call("/batch/tokenize", {"texts": list(texts)}, model_id=model_id))

    def generate(self, prompt: str, *, model_id: str | None = None, **sampling: Any) -> Body:
        """``{"text", "token_ids", "num_generated", "finish_reason"}``.

        ``sampling``: ``max_tokens, temperature, strategy, top_k, top_p, seed``. See ``stream_generate`` for a stream.
        """
        return self.call(model_call("/generate", {"prompt": prompt}, model_id=model_id, sampling=sampling))

    def generate_batch(self, prompts: Sequence[str], *, model_id: str | None = None, **sampling: Any) -> Body:
        """``{"results": [...]}``, one as ``generate`` gives for each prompt, in their order."""
        body = {"prompts": list(prompts)}
        return self.call(model_call("/batch/generate", body, model_id=model_id, sampling=sampling))

    # history and health

    def list_events(self, **filters: Any) -> Body:
        return self.call(Call("GET", f"{API}/events", filters))

    def health(self) -> Body:
        """Whether Hostler is well. Needs no key."""
        return self.call(Call("GET", "/health"))


def events_feed(*, after: str | None = None, **filters: Any) -> Feed:
    """The history as it is written, to give to ``follow``; from the event after the cursor ``after`` on."""
    return Feed(Call("GET", f"{API}/events", filters), last_id=after)


def replica_events_feed(replica_id: str, *, after: str | None = None) -> Feed:
    """One replica's history as it is written, until its record is deleted."""
    return Feed(Call("GET", _path("replicas", replica_id, "events")), last_id=after, last_kind="replica_deleted")


def task_events_feed(task_id: str, *, after: str | None = None) -> Feed:
    """One task's history as it is written, until the task has ended."""
    return Feed(Call("GET", _path("tasks", task_id, "events")), last_id=after)


def registration_feed(
    endpoint: str,
    capabilities: Iterable[Mapping[str, Any]],
    *,
    replica_id: str | None = None,
    on_break: Callable[[str, float], None] | None = None,
) -> Registration:
    """A server that is registered for as long as this is followed; see ``registering.Registration``."""
    return Registration(endpoint, capabilities, replica_id=replica_id, on_break=on_break)


def logs_feed(replica_id: str, *, attempt: int | None = None, tail: int | None = None) -> Feed:
    """An attempt's output as it is written, until the attempt has ended."""
    query = {"follow": 1, "attempt": attempt, "tail": tail}
    return Feed(
        Call("GET", _path("replicas", replica_id, "logs"), query), ends_when_closed=True, without_place={"tail": 0}
    )
