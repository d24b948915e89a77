"""What can go wrong for a caller of Hostler, and the exit code with which the command line says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

EXIT_CODES: dict[int, str] = {
    0: "done",
    1: "error",
    2: "usage",
    3: "not found",
    4: "not authenticated, or not allowed",
    5: "conflict with the present state",
    6: "the replica or service failed, or is not healthy",
    7: "timed out",
    8: "Hostler is unreachable",
    130: "interrupted by Ctrl-C",
}


class HostlerError(Exception):
    """Something went wrong. ``hint`` is the command to type next, when there is one."""

    exit_code = 1

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        self.message = message or (self.__doc__ or "").strip()
        self.hint = hint
        super().__init__(self.message)


class BadInput(HostlerError):
    """What was given cannot be used."""

    exit_code = 2


class Unreachable(HostlerError):
    """Hostler does not answer."""

    exit_code = 8

    def __init__(self, message: str = "", *, hint: str = "is the stack up? hostler up -d", sent: bool = True) -> None:
        super().__init__(message, hint=hint)
        #: False when the request certainly never reached the server
        self.sent = sent


class NoAnswer(Unreachable):
    """Hostler was asked and did not answer in time."""


class TimedOut(HostlerError):
    """What was waited for did not happen in time. It may still happen."""

    exit_code = 7


class ReplicaFailed(HostlerError):
    """The replica ended before it did what was asked."""

    exit_code = 6

    def __init__(
        self, message: str = "", *, replica_id: str = "", reason: str = "", log_tail: str = "", hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.replica_id = replica_id
        self.reason = reason
        #: the last lines of its output, as they were written: not cleaned for a terminal
        self.log_tail = log_tail


class ServiceFailed(HostlerError):
    """The service did not come to what was asked for."""

    exit_code = 6

    def __init__(
        self, message: str = "", *, service_id: str = "", reason: str = "", log_tail: str = "", hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.service_id = service_id
        self.reason = reason
        #: the last lines of a replica that failed, as they were written: not cleaned for a terminal
        self.log_tail = log_tail


class NoKey(HostlerError):
    """No API key was found, or it cannot be read."""

    exit_code = 4


class ApiError(HostlerError):
    """The API answered with a problem (RFC 9457)."""

    def __init__(
        self,
        message: str = "",
        *,
        status: int = 0,
        code: str = "error",
        title: str = "",
        errors: Mapping[str, Sequence[str]] | None = None,
        request_id: str = "",
        retry_after_s: float | None = None,
        body: Mapping[str, Any] | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message or title or f"HTTP {status}", hint=hint)
        self.status = status
        self.code = code
        self.title = title
        #: messages by field name
        self.errors = {name: list(messages) for name, messages in (errors or {}).items()}
        self.request_id = request_id
        #: seconds after which trying again can help; None when the server named none
        self.retry_after_s = retry_after_s
        #: the problem document, empty when the answer was no JSON object
        self.body = dict(body or {})


class Refused(ApiError):
    """What was asked for is not valid."""

    exit_code = 2


class NotFound(ApiError):
    """There is nothing by that name."""

    exit_code = 3


class Unauthenticated(ApiError):
    """The API key is missing or wrong."""

    exit_code = 4


class Forbidden(ApiError):
    """The API key's role does not allow this."""

    exit_code = 4


class Conflict(ApiError):
    """The present state does not allow this."""

    exit_code = 5


class LaunchFailed(ApiError):
    """The replica, or the service, failed before it was ready."""

    exit_code = 6


class Busy(ApiError):
    """A limit was reached, or the server is not ready. Trying again later can help."""


class NoMatchingServer(NotFound):
    """No registered server has this capability."""

    def __init__(self, message: str = "", *, capability: Mapping[str, Any] | None = None, **more: Any) -> None:
        super().__init__(message, **more)
        self.capability = dict(capability or {})


class InferenceError(HostlerError):
    """The inference was not carried out, or not answered."""

    exit_code = 6

    def __init__(
        self,
        message: str = "",
        *,
        endpoint: str = "",
        replica_id: str = "",
        status: str = "",
        sent: bool = True,
        calls: int = 1,
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.endpoint = endpoint
        self.replica_id = replica_id
        #: the server's own word: an HTTP status, a gRPC status, or ``unreachable``
        self.status = status
        #: False when the call certainly never reached a server; True when it may have been carried out
        self.sent = sent
        #: how often it was sent out in all
        self.calls = calls


class ServerFailed(InferenceError):
    """The server was not there, broke off, or failed. Another one may do it."""


class InferenceRefused(InferenceError):
    """The server will not carry out this call: wrong inputs, unknown model, over a limit."""

    exit_code = 2


class InferenceTimedOut(InferenceError):
    """The server did not answer in time. It may still carry the call out."""

    exit_code = 7


class RegistrationEnded(HostlerError):
    """The registration was ended by Hostler, and is not to be sent again."""

    exit_code = 5


class MissingExtra(HostlerError):
    """A part of Hostler that is installed only on demand is missing."""


_BY_STATUS: dict[int, type[ApiError]] = {
    **dict.fromkeys((400, 413, 414, 415, 422, 431), Refused),
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    429: Busy,
    503: Busy,
}
_BY_CODE: dict[str, type[ApiError]] = {
    "replica_failed": LaunchFailed,
    "service_failed": LaunchFailed,
    "unknown_recipe": NotFound,
    "unknown_model": NotFound,
    "unknown_pool": NotFound,
}


def api_error_type(status: int, code: str) -> type[ApiError]:
    """The class for an answer of ``status`` whose problem has ``code``."""
    return _BY_CODE.get(code) or _BY_STATUS.get(status, ApiError)
