"""flask-smorest's blueprint with our conventions: a role for every route, strict bodies, documented problems."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from flask_smorest import Blueprint as SmorestBlueprint

from app.api.auth import OPEN, allow
from app.api.bodies import Parser

View = TypeVar("View", bound=Callable[..., Any])

ERRORS_OF_EVERY_KEYED_ROUTE = (400, 401, 403, 422, 503)
ERRORS_OF_A_BODY = (413, 415)
WRITES = ("post", "put", "patch", "delete")

IDEMPOTENCY_KEY = {
    "in": "header",
    "name": "Idempotency-Key",
    "required": False,
    "description": "Sent again within 24 hours with the same body, the request is answered again and not carried out.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
REQUEST_ID = {
    "in": "header",
    "name": "X-Request-Id",
    "required": False,
    "description": "Name of this request in logs, events and tasks; made when it is left out.",
    "schema": {"type": "string", "maxLength": 128},
}
PREFER = {
    "in": "header",
    "name": "Prefer",
    "required": False,
    "description": "`wait=N` waits up to N seconds for the task to end; `respond-async` does not wait.",
    "schema": {"type": "string"},
    "example": "wait=30",
}
IF_NONE_MATCH = {
    "in": "header",
    "name": "If-None-Match",
    "required": False,
    "description": "ETag of an earlier answer: 304 when nothing changed.",
    "schema": {"type": "string"},
}
LAST_EVENT_ID = {
    "in": "header",
    "name": "Last-Event-ID",
    "required": False,
    "description": "Cursor of the last event seen; a stream goes on behind it.",
    "schema": {"type": "string", "pattern": "^[0-9]+-[0-9]+$"},
}


_REFERENCE = {"schema": {"type": "string", "format": "uri-reference"}}
#: What answers of these statuses carry beside their body.
ANSWER_HEADERS: dict[int, dict[str, Any]] = {
    201: {"Location": {"description": "Where it is.", **_REFERENCE}},
    202: {
        "Location": {"description": "What is being worked on.", **_REFERENCE},
        "Link": {"description": 'The task: `<...>; rel="monitor"`.', "schema": {"type": "string"}},
        "Retry-After": {"description": "Seconds until another look pays.", "schema": {"type": "integer"}},
    },
}


class Blueprint(SmorestBlueprint):
    """Routes of one noun."""

    ARGUMENTS_PARSER = Parser()

    def __init__(self, name: str, description: str, url_prefix: str = "/api/v1") -> None:
        super().__init__(name, __name__, url_prefix=url_prefix, description=description)
        self._prepare_doc_cbks.append(self._prepare_conventions_doc)

    def response(self, *args: Any, **kwargs: Any) -> Callable[[View], View]:
        """Document an answer. Our views make it themselves, so nothing is put between them and the caller."""
        return _documenting(super().response(*args, **kwargs))

    def alt_response(self, *args: Any, **kwargs: Any) -> Callable[[View], View]:
        """Document a further answer."""
        return _documenting(super().alt_response(*args, **kwargs))

    def operation(
        self,
        rule: str,
        method: str,
        role: str,
        *,
        errors: tuple[int, ...] = (),
        waits: bool = False,
        conditional: bool = False,
        parameters: tuple[dict[str, Any], ...] = (),
        replays: bool = True,
        also: tuple[str, ...] = (),
    ) -> Callable[[View], View]:
        """Register a view for one method of ``rule``.

        ``errors`` are statuses beside those of every route; ``waits``: it heeds Prefer; ``conditional``: a read with
        an ETag; ``replays``: a write that heeds Idempotency-Key; ``also``: other roles that may use it. Everything
        named here shows in the documentation.
        """

        def register(view: View) -> View:
            view = allow(role, *also)(view)
            headers = [REQUEST_ID, *parameters]
            if replays and method.lower() in WRITES:
                headers.append(IDEMPOTENCY_KEY)
            if waits:
                headers.append(PREFER)
            if conditional:
                headers.append(IF_NONE_MATCH)
            documented = set(errors)
            documented |= {304} if conditional else set()
            documented |= {409} if replays and method.lower() in WRITES else set()
            documented |= {404} if "<" in rule else set()
            info = dict(getattr(view, "_apidoc", {}))
            info["conventions"] = {"role": role, "headers": headers, "errors": documented, "name": view.__name__}
            info["conventions"]["also"] = also
            view._apidoc = info  # type: ignore[attr-defined]
            self.add_url_rule(rule, None, view, methods=[method])
            return view

        return register

    @staticmethod
    def _prepare_conventions_doc(doc: dict[str, Any], doc_info: dict[str, Any], **_: Any) -> dict[str, Any]:
        conventions = doc_info["conventions"]
        doc["operationId"] = conventions["name"]
        statuses = set(conventions["errors"])
        if conventions["role"] == OPEN:
            doc["security"] = []
        else:
            statuses |= set(ERRORS_OF_EVERY_KEYED_ROUTE)
            doc["x-required-role"] = conventions["role"]
            if conventions["also"]:
                doc["x-other-roles"] = list(conventions["also"])
        if "requestBody" in doc:
            statuses |= set(ERRORS_OF_A_BODY)
        responses = doc.setdefault("responses", {})
        for status in sorted(statuses):
            responses[status] = response_name(status)
        for status in [code for code, found in responses.items() if isinstance(found, str) and code not in statuses]:
            # what a decorator of flask-smorest added by name
            responses[status] = response_name(int(status))
        for status, found in responses.items():
            if isinstance(found, dict) and status in ANSWER_HEADERS:
                found["headers"] = {**ANSWER_HEADERS[status], **found.get("headers", {})}
        doc.setdefault("parameters", []).extend(conventions["headers"])
        return doc


def _documenting(decorate: Callable[[Any], Any]) -> Callable[[View], View]:
    def document(view: View) -> View:
        view._apidoc = decorate(view)._apidoc  # type: ignore[attr-defined]
        return view

    return document


def response_name(status: int) -> str:
    """Name of the shared response component of ``status``."""
    return f"Status{status}"
