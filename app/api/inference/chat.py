"""``POST /chat``: a prompt in, plain text out as it is made: see docs/chat.md."""

from __future__ import annotations

import errno
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import chain
from typing import Any

from flask import Response, current_app, g

from app.api import problem, waiting
from app.api.auth import actor, context
from app.api.blueprint import Blueprint
from app.api.inference.caller import Caller, CallerLeft
from app.api.inference.conversation import Conversation, whole_characters
from app.api.inference.counting import Count, counted
from app.api.inference.door import Door
from app.api.inference.routes import GONE
from app.api.schemas import chat as schema
from app.api.text import MIMETYPE, as_text_if_asked
from app.engines.dialects.base import ChatSampling, Dialect, Message, Piece
from app.errors import HostlerError, Starting, Unauthenticated
from app.stack.layout import Layout
from app.usecases.chat import Chat

blueprint = Blueprint("chat", "One question to whichever worker is idle, answered as plain text.", url_prefix="")

#: What may come of asking a worker.
ERRORS = (404, 429, 501, 502, 504)
TEXT = {"type": "string", "description": "The answer as it is made. One that ends without its last chunk is not whole."}


@blueprint.operation("/chat", "POST", "infer", errors=ERRORS, replays=False)
@blueprint.arguments(schema.Chat())
@blueprint.response(200, TEXT, content_type=MIMETYPE)
@counted
def chat(count: Count, body: dict[str, Any]) -> Response:
    """Ask an idle worker, and read its answer as it is made

    Waits for a worker when all are busy. What fails before the first text has its own status; what fails later breaks
    the answer off without its last chunk, which every HTTP client reports as an error.
    """
    pool: Chat = current_app.extensions["hostler-chat"]
    settings = context().settings
    target = pool.choose(actor(), waiting.caller_left)
    count.model = target.name
    conversation = Conversation(
        Door(Layout(settings.state_dir).inside_socket),
        target,
        {"X-Hostler-Key-Id": actor().key_id, "X-Request-Id": g.request_id},
        Caller.of_request(),
        settings.gateway_retries + 1,
        patience_s=settings.gateway_queue_s,
        room=pool.room,
    )
    pieces = conversation.chat(_messages(body), _sampling(body, target.dialect))
    # with the first text the status is settled
    first = next(piece for piece in pieces if piece.text or piece.done)
    response = Response(_whole_or_cut(_text(first, pieces, count), count), mimetype=MIMETYPE)
    response.headers.update({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
    if conversation.replica_id:
        response.headers["X-Hostler-Replica"] = conversation.replica_id
    return response


@blueprint.errorhandler(CallerLeft)
def _gone(_left: CallerLeft) -> Response:
    return Response(status=GONE)


@blueprint.errorhandler(Unauthenticated)
def _bad_key(error: Unauthenticated) -> Response:
    # these very words are promised; what else there is to say stands beside them
    told = problem.problem(error.status, error.code, error.title, "Bad API key", errors={"X-API-Key": [error.detail]})
    return as_text_if_asked(told, "Bad API key")


@blueprint.errorhandler(Starting)
def _starting(error: Starting) -> Response:
    return as_text_if_asked(problem.answer_to(error), error.detail)


def _messages(body: dict[str, Any]) -> list[Message]:
    system = [Message("system", body["system_prompt"])] if body["system_prompt"] else []
    return [*system, Message("user", body["prompt"])]


def _sampling(body: dict[str, Any], dialect: Dialect) -> ChatSampling:
    penalty = body["repeat_penalty"]
    if penalty is None and dialect.penalises_repeats:
        penalty = schema.REPEAT_PENALTY
    return ChatSampling(body["max_tokens"], body["temperature"], body["top_p"], penalty)


def _text(first: Piece, pieces: Generator[Piece], count: Count) -> Iterator[str]:
    """The text of each piece. Half of a surrogate pair waits for the other half."""
    held = ""
    # whoever stops reading ends it at the replica too
    with closing(pieces):
        for piece in chain((first,), pieces):
            text = held + piece.text
            held = text[-1] if text and "\ud800" <= text[-1] <= "\udbff" and not piece.done else ""
            text = whole_characters(text.removesuffix(held))
            if text:
                yield text
            count.tokens = count.tokens + bool(piece.text) if piece.tokens is None else piece.tokens
    if held:
        yield whole_characters(held)


def _whole_or_cut(texts: Iterator[str], count: Count) -> Iterator[str]:
    """``texts``; what fails breaks the connection off: an end that looks like one would pass for the whole answer."""
    try:
        yield from texts
    except HostlerError as error:
        count.failed()
        raise ConnectionResetError(errno.ECONNRESET, f"the answer broke off: {error.detail}") from error
    except CallerLeft as left:
        count.left()
        raise ConnectionResetError(errno.ECONNRESET, "the caller left") from left
    except GeneratorExit:
        count.left()
        raise
    else:
        count.succeeded()
