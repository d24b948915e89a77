"""Every error of the control plane: its code, its status, whether trying again can help, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class HostlerError(Exception):
    """Something went wrong that the caller should know."""

    status = 400
    code = "error"
    retryable = False
    title = "Request failed"

    def __init__(
        self,
        detail: str = "",
        *,
        errors: Mapping[str, Sequence[str]] | None = None,
        retry_after_s: int | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        self.detail = detail or (self.__doc__ or "").strip()
        self.errors = {name: list(messages) for name, messages in (errors or {}).items()}
        self.retry_after_s = retry_after_s
        self.extra = dict(extra or {})
        super().__init__(self.detail)


class Malformed(HostlerError):
    """The request cannot be read. Send what `/docs` shows for this route."""

    code, title = "malformed", "The request cannot be read"


class MissingFields(HostlerError):
    """Required fields are missing. Add the named fields and send the request again."""

    code, title = "missing_fields", "Required fields are missing"


class Contradiction(HostlerError):
    """Two options contradict each other. Send only one of the named fields."""

    code, title = "contradicting_options", "Options contradict each other"


class Unauthenticated(HostlerError):
    """No valid API key was sent. Send it as X-API-Key, Bearer token or Basic password."""

    status, code, title = 401, "unauthenticated", "A valid API key is required"


class Forbidden(HostlerError):
    """The key's role does not allow this. Ask an admin for a key of the named role."""

    status, code, title = 403, "forbidden", "The key's role is too low"


class EndpointRefused(Forbidden):
    """Nothing may be registered there. HOSTLER_REGISTER_ALLOW names the hosts that are allowed."""

    code, title = "endpoint_refused", "The endpoint is not allowed"


class NotFound(HostlerError):
    """There is nothing by that name. List what there is and try again."""

    status, code, title = 404, "not_found", "Not found"


class NoMatch(NotFound):
    """No registered server has all of these capabilities at once. `hostler registration list` shows what there is."""

    code, title = "no_matching_replica", "No server has these capabilities"


class MethodNotAllowed(HostlerError):
    """This route does not take that method. The Allow header names those it takes."""

    status, code, title = 405, "method_not_allowed", "Method not allowed"


class BodyTooLarge(HostlerError):
    """The request body is too large. HOSTLER_MAX_BODY and HOSTLER_MAX_BODY_BYTES are the limits."""

    status, code, title = 413, "body_too_large", "The body is too large"


class UriTooLong(HostlerError):
    """The address is longer than 4,000 bytes. Send fewer or shorter filters."""

    status, code, title = 414, "uri_too_long", "The address is too long"


class HeadersTooLarge(HostlerError):
    """The headers are too large: at most 100 of 8,000 bytes each. Send fewer or shorter ones."""

    status, code, title = 431, "headers_too_large", "The headers are too large"


class Internal(HostlerError):
    """This is a defect of Hostler. Please report it with the request id; the log of the API holds the cause."""

    status, code, title = 500, "internal", "Hostler has a defect"


class Conflict(HostlerError):
    """The present state does not allow this. Look at the resource and try again."""

    status, code, title = 409, "conflict", "Not allowed in the present state"


class NameTaken(Conflict):
    """That name is taken. Choose another or delete the old one."""

    code, title = "name_taken", "The name is taken"


class InFlight(Conflict):
    """A request with the same Idempotency-Key is being carried out. Repeat it in a moment."""

    code, title, retryable = "idempotency_in_flight", "The same request is in flight", True


class WrongMediaType(HostlerError):
    """The body's media type is not understood. Send `Content-Type: application/json`."""

    status, code, title = 415, "unsupported_media_type", "The body must be JSON"


class InvalidConfig(HostlerError):
    """The request cannot be carried out as written. Correct the named fields."""

    status, code, title = 422, "invalid_config", "The request is not valid"


class UnknownModel(InvalidConfig):
    """No model of that name. See `hostler model list`."""

    code, title = "unknown_model", "Unknown model"


class UnknownPool(InvalidConfig):
    """No pool of that name. See `hostler pool list`."""

    code, title = "unknown_pool", "Unknown pool"


class UnknownRecipe(InvalidConfig):
    """No recipe of that name, or several. See `hostler recipe list`."""

    code, title = "unknown_recipe", "Unknown recipe"


class KeyReused(InvalidConfig):
    """The Idempotency-Key was used with another body. Use a new key for a new request."""

    code, title = "idempotency_key_reused", "Idempotency-Key was used for another request"


class UnknownHubModel(NotFound):
    """The hub has no such model, or shows it only to those it knows. See its name, or set HOSTLER_HF_TOKEN."""

    code, title = "hub_model_not_found", "The hub has no such model"


class GatedModel(Forbidden):
    """The hub shows this model only to those it was granted to. Ask for access there, and set HOSTLER_HF_TOKEN."""

    code, title = "hub_model_gated", "The model is gated"


class RequestTimedOut(HostlerError):
    """The request did not arrive in time. Send its headers and body without pauses."""

    status, code, title, retryable = 408, "request_timeout", "The request did not arrive in time", True


class RateLimited(HostlerError):
    """Too many requests. Wait as long as Retry-After says."""

    status, code, title, retryable = 429, "rate_limited", "Too many requests", True


class WrongEncoding(HostlerError):
    """The body is compressed. Send it without Content-Encoding."""

    status, code, title = 415, "unsupported_encoding", "The body must not be compressed"


class RouteFull(HostlerError):
    """Too many requests wait for this model already. Wait as long as Retry-After says."""

    status, code, title, retryable = 429, "route_full", "The model's queue is full", True


class ReplicasBusy(HostlerError):
    """No replica took the request in time: all are busy, or out. Wait as long as Retry-After says."""

    status, code, title, retryable = 503, "replicas_busy", "No replica took the request in time", True


class BadGateway(HostlerError):
    """The server behind the gateway ended the connection or answered what cannot be read. See its logs."""

    status, code, title = 502, "bad_gateway", "No readable answer from the server"


class GatewayTimedOut(HostlerError):
    """The server behind the gateway took too long to answer. Ask for less, or look at it with `hostler doctor`."""

    status, code, title = 504, "gateway_timeout", "The server took too long"


class RegistryFull(HostlerError):
    """No more servers may be registered. HOSTLER_MAX_REGISTRATIONS is the limit."""

    status, code, title, retryable = 429, "registry_full", "The registry is full", True


class QueueFull(HostlerError):
    """The pool's queue is full. Wait, or stop what is not needed."""

    status, code, title, retryable = 429, "queue_full", "The pool's queue is full", True


class LaunchFailed(HostlerError):
    """The replica failed before it was ready. See `hostler replica logs`."""

    status, code, title = 502, "replica_failed", "The replica failed before it was ready"


class ServiceFailed(HostlerError):
    """The service did not come to what was asked for. `hostler service status` says which replicas are why."""

    status, code, title = 502, "service_failed", "The service did not get there"


class Collided(HostlerError):
    """Changes of the same record got in each other's way. Send the request again."""

    status, code, title, retryable = 503, "collided", "Changes got in each other's way", True


class Unavailable(HostlerError):
    """The database does not answer. Try again; see `hostler doctor`."""

    status, code, title, retryable = 503, "unavailable", "Not available now", True


class LogAway(HostlerError):
    """The log lies on a host that cannot be asked now. Try again; see `hostler node list` and `hostler doctor`."""

    status, code, title, retryable = 503, "log_away", "The log cannot be read now", True


class EmptyInput(HostlerError):
    """There is nothing to work on. Send a prompt of at least one character, a batch of at least one item."""

    code, title = "empty_input", "The prompt or batch is empty"


class UnknownStrategy(HostlerError):
    """That strategy is not known. Send greedy, top_k or top_p."""

    code, title = "unknown_strategy", "Unknown strategy"


class ModelRequired(HostlerError):
    """The request names no model and there is no one default. Send model_id, or set HOSTLER_DEFAULT_MODEL."""

    code, title = "model_required", "Which model?"


class ModelNotFound(NotFound):
    """There is no model of that name. `GET /models` lists what there is."""

    code, title = "model_not_found", "Model not found"


class ModelForbidden(Forbidden):
    """The key is limited to other models. Ask an admin for one that is allowed this model."""

    code, title = "model_forbidden", "The key is not allowed this model"


class StoreRefused(HostlerError):
    """The vector database refused the request. Change what its message names."""

    code, title = "store_refused", "The vector database refused the request"


class CollectionNotFound(NotFound):
    """The vector database has no such collection. List its collections and try again."""

    code, title = "collection_not_found", "Collection not found"


class PointNotFound(NotFound):
    """The collection has no such point. Scroll through its points and try again."""

    code, title = "point_not_found", "Point not found"


class CollectionExists(Conflict):
    """The vector database has such a collection already. Use it, delete it, or choose another name."""

    code, title = "collection_exists", "The collection exists"


class ReplicaRefused(HostlerError):
    """The replica refused the request. Change what its message names."""

    status, code, title = 422, "replica_refused", "The replica refused the request"


class ReplicaBusy(HostlerError):
    """All replicas of the model are busy and the queue is full, or the key's limit is reached. Try again."""

    status, code, title, retryable = 429, "busy", "Too many requests at once", True


class NotOffered(HostlerError):
    """The model's engine has no way to do this. Ask another model, or serve this one with another engine."""

    status, code, title = 501, "not_offered", "The engine does not offer this"


class ReplicaBadAnswer(HostlerError):
    """The replica did not answer as its API says. Try again; see `hostler replica list` and its logs."""

    status, code, title, retryable = 502, "replica_bad_answer", "The replica answered badly", True


class NoReadyReplica(HostlerError):
    """No replica of the model is ready. Try again; see `hostler replica list`, or create one."""

    status, code, title, retryable = 503, "no_ready_replica", "No replica is ready", True


class Starting(HostlerError):
    """The chat's first worker is not ready yet. Try again; see `hostler service list`."""

    status, code, title, retryable = 503, "starting", "The server is starting up", True


class GatewayDown(HostlerError):
    """The gateway does not answer. Try again; see `hostler status`."""

    status, code, title, retryable = 503, "gateway_unavailable", "The gateway does not answer", True


class HubUnavailable(HostlerError):
    """The hub cannot be asked. Try again; HF_ENDPOINT says where it is."""

    status, code, title, retryable = 503, "hub_unavailable", "The hub cannot be asked", True


class HubBadAnswer(HostlerError):
    """The hub answered with what cannot be read. See that HF_ENDPOINT names a hub."""

    status, code, title, retryable = 502, "hub_bad_answer", "The hub answered badly", True


class ReplicaTooSlow(HostlerError):
    """The replica did not answer in time. Ask for fewer tokens, or try again."""

    status, code, title, retryable = 504, "replica_too_slow", "The replica was too slow", True
