"""Answers in plain words, for callers that ask for text: by ``Accept: text/plain``, without JSON beside it."""

from __future__ import annotations

from flask import Response, request

from app.api import problem

MIMETYPE = "text/plain"


def prefers_text() -> bool:
    """Whether the request names plain text before JSON; what takes anything gets JSON."""
    return request.accept_mimetypes.best_match(("application/json", problem.MIMETYPE, MIMETYPE)) == MIMETYPE


def as_text_if_asked(told: Response, words: str) -> Response:
    """The problem, or only its words for a caller that asks for text."""
    if not prefers_text():
        return told
    text = Response(words, told.status_code, mimetype=MIMETYPE)
    kept = ("WWW-Authenticate", "Retry-After")
    text.headers.update({name: told.headers[name] for name in kept if name in told.headers})
    return text
