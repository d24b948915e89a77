"""``/models``, ``/tokenize``, ``/generate`` and their batches: see docs/model-api.md."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import chain
from typing import Any

from flask import Response, g, request

from app.api import answers, sse
from app.api.auth import actor, context
from app.api.blueprint import Blueprint
from app.api.inference.batches import each
from app.api.inference.caller import Caller, CallerLeft
from app.api.inference.conversation import Conversation, whole_characters
from app.api.inference.counting import Count, counted
from app.api.inference.door import Door
from app.api.schemas.inference import (
    DEFAULTS,
    BatchGenerate,
    BatchTokenize,
    Generate,
    GeneratedBatch,
    GeneratedText,
    ServedModels,
    Tokenize,
    Tokens,
    TokensBatch,
)
from app.engines.dialects.base import Piece, Sampling
from app.errors import Malformed
from app.stack.layout import Layout
from app.usecases import served, served_models

blueprint = Blueprint("inference", "Tokens and text from whatever replica of a model is ready.", url_prefix="")

#: What may come of asking a replica.
ERRORS = (404, 429, 501, 502, 504)
ADDRESSES = tuple(
    {
        "in": "header",
        "name": f"X-Hostler-{what}",
        "required": False,
        "description": f"Ask this {what.lower()}, whatever else serves the model.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 200},
    }
    for what in ("Replica", "Service")
)
STREAM = {"type": "string", "description": 'Server-sent events: `{"token": ...}` each, `{"done": true}` at the end.'}
_NAME = re.compile(r"[!-~]{1,200}")
#: What nobody hears; the log of HTTP servers knows it by this number.
GONE = 499


@blueprint.operation("/models", "GET", "infer", conditional=True)
@blueprint.response(200, ServedModels)
def list_served_models() -> Response:
    """Models that can be asked for

    Those of the catalogue, the files of the models folder, and whatever runs; a limited key sees its own.
    """
    return answers.read({"models": served_models.list_served(context(), actor())})


@blueprint.operation("/tokenize", "POST", "infer", errors=ERRORS, parameters=ADDRESSES, replays=False)
@blueprint.arguments(Tokenize())
@blueprint.response(200, Tokens)
def tokenize(body: dict[str, Any]) -> Response:
    """Cut a text into tokens, as the model reads it"""
    conversation = _conversation(body)
    return _answer(conversation, conversation.tokenize(body["text"]))


@blueprint.operation("/generate", "POST", "infer", errors=ERRORS, parameters=ADDRESSES, replays=False)
@blueprint.arguments(Generate())
@blueprint.response(200, GeneratedText)
@counted
def generate(count: Count, body: dict[str, Any]) -> Response:
    """Go on from a prompt"""
    conversation = _conversation(body, count)
    made = conversation.generate(body["prompt"], _sampling(body))
    count.tokens = made["num_generated"]
    return _answer(conversation, made)


@blueprint.operation("/stream/generate", "POST", "infer", errors=ERRORS, parameters=ADDRESSES, replays=False)
@blueprint.arguments(Generate())
@blueprint.response(200, STREAM, content_type=sse.MIMETYPE)
@counted
def stream_generate(count: Count, body: dict[str, Any]) -> Response:
    """Go on from a prompt, token by token

    What fails before the first token has its own status. Later it is told by an event
    `{"error", "code", "status"}` in place of `{"done": true}`.
    """
    conversation = _conversation(body, count)
    pieces = conversation.stream(body["prompt"], _sampling(body))
    # with the first piece the status is settled
    first = next(pieces)
    response = Response(count.following(_events(first, pieces, count)), mimetype=sse.MIMETYPE)
    response.headers.update({"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **_told(conversation)})
    return response


@blueprint.operation("/batch/tokenize", "POST", "infer", errors=ERRORS, parameters=ADDRESSES, replays=False)
@blueprint.arguments(BatchTokenize())
@blueprint.response(200, TokensBatch)
def batch_tokenize(body: dict[str, Any]) -> Response:
    """Cut several texts into tokens

    Results stand in the order of the texts. One that fails fails all; `index` says which.
    """
    conversation = _conversation(body)
    at_once = context().settings.batch_concurrency
    results = each(conversation.tokenize, body["texts"], "texts", conversation.caller, at_once)
    return answers.answer({"results": results})


@blueprint.operation("/batch/generate", "POST", "infer", errors=ERRORS, parameters=ADDRESSES, replays=False)
@blueprint.arguments(BatchGenerate())
@blueprint.response(200, GeneratedBatch)
@counted
def batch_generate(count: Count, body: dict[str, Any]) -> Response:
    """Go on from several prompts

    Results stand in the order of the prompts. One that fails fails all; `index` says which.
    """
    conversation = _conversation(body, count)
    sampling, at_once = _sampling(body), context().settings.batch_concurrency
    if sampling.seed is not None and conversation.target.dialect.alone_when_seeded:
        at_once = 1

    def work(prompt: str) -> dict[str, Any]:
        return conversation.generate(prompt, sampling)

    results = each(work, body["prompts"], "prompts", conversation.caller, at_once)
    count.tokens = sum(result["num_generated"] for result in results)
    return answers.answer({"results": results})


@blueprint.errorhandler(CallerLeft)
def _gone(_left: CallerLeft) -> Response:
    return Response(status=GONE)


def _conversation(body: dict[str, Any], count: Count | None = None) -> Conversation:
    ctx = context()
    target = served.choose(
        ctx,
        actor(),
        body.get("model_id"),
        replica_id=_address("X-Hostler-Replica"),
        service_id=_address("X-Hostler-Service"),
    )
    if count is not None:
        count.model = target.name
    headers = {"X-Hostler-Key-Id": actor().key_id, "X-Request-Id": g.request_id}
    door = Door(Layout(ctx.settings.state_dir).inside_socket)
    return Conversation(door, target, headers, Caller.of_request(), ctx.settings.gateway_retries + 1)


def _address(header: str) -> str:
    found = request.headers.get(header, "")
    if found and not _NAME.fullmatch(found):
        raise Malformed(f"{header} is no id. Send the id of one.")
    return found


def _sampling(body: dict[str, Any]) -> Sampling:
    return Sampling(**{name: body[name] for name in vars(DEFAULTS)})


def _answer(conversation: Conversation, body: dict[str, Any]) -> Response:
    return answers.answer(body, headers=_told(conversation))


def _told(conversation: Conversation) -> dict[str, str]:
    return {"X-Hostler-Replica": conversation.replica_id} if conversation.replica_id else {}


def _events(first: Piece, pieces: Generator[Piece], count: Count) -> Iterator[str]:
    """The events of a stream. Half of a surrogate pair waits for the other half."""
    held = ""
    # whoever stops reading ends it at the replica too
    with closing(pieces):
        for piece in chain((first,), pieces):
            text = held + piece.text
            held = text[-1] if text and "\ud800" <= text[-1] <= "\udbff" and not piece.done else ""
            text = whole_characters(text.removesuffix(held))
            if text:
                yield _event({"token": text})
            count.tokens = count.tokens + bool(piece.text) if piece.tokens is None else piece.tokens
    if held:
        yield _event({"token": whole_characters(held)})
    yield _event({"done": True})


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, separators=(',', ':'))}\n\n"
