"""Never a 500, a time to come back with every 503 and 429, and every error as ``application/problem+json``."""

from __future__ import annotations

from collections.abc import Iterator

from tests.faults.harness.checker.evidence import Evidence
from tests.faults.harness.checker.requests import Request
from tests.faults.harness.facts import Finding

#: What a server error may be, where its route documents it.
DOCUMENTED = frozenset({501, 502, 503, 504})
_PROBLEM = ("type", "title", "status", "detail", "code")


def check_answers(found: Evidence) -> Iterator[Finding]:
    for request in found.requests:
        if request.status is not None and request.status >= 400:
            yield from _judge(request, request.status)


def _judge(request: Request, status: int) -> Iterator[Finding]:
    told = {
        "request": f"{request.method} {request.path}",
        "id": request.request_id,
        "status": status,
        "headers": request.headers,
        "answer": request.answer,
    }
    if status >= 500 and status not in DOCUMENTED:
        yield Finding("answers", f"a request was answered {status}", told)
    wait = request.headers.get("retry-after", "")
    if status in (429, 503) and not (wait.isdigit() and int(wait) > 0):
        yield Finding("answers", f"a {status} does not say when to come back (Retry-After)", told)
    if not request.headers.get("content-type", "").startswith("application/problem+json"):
        yield Finding("answers", f"a {status} is no application/problem+json", told)
    elif not isinstance(request.answer, dict) or any(name not in request.answer for name in _PROBLEM):
        yield Finding("answers", f"a {status} lacks members of a problem", told)
    elif request.answer["status"] != status:
        yield Finding("answers", f"a {status} says it is {request.answer['status']}", told)
