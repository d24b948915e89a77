"""``/api/v1/vllm/{id}``: a service's models, its counters, and prompts to whichever of its replicas has room."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import chain
from typing import Any

from flask import Response, g

from app.api import answers, joined_metrics, paging, sse
from app.api.auth import actor, context
from app.api.blueprint import Blueprint
from app.api.inference.caller import Caller, CallerLeft
from app.api.inference.chatless import Chatless
from app.api.inference.conversation import Conversation, whole_characters
from app.api.inference.counting import Count, counted
from app.api.inference.door import Door
from app.api.inference.prompting import Prompting, loaded_models
from app.api.inference.routes import GONE
from app.api.paging import PageQuery
from app.api.schemas.services import ServicePage
from app.api.schemas.vllm import DEFAULT_TOKENS, LoadedModels, PromptAnswer, PromptBody
from app.engines.dialects.prompts import Part, Prompt
from app.errors import NotOffered
from app.stack.layout import Layout
from app.usecases import prompts
from app.usecases.prompts import Prompted

blueprint = Blueprint("vllm", "Services that answer prompts, through whichever of their replicas has room.")

ID = "<service_ref:service_id>"
#: What may come of asking a replica; 503 is among every route's.
ERRORS = (409, 429, 501, 502, 504)
TEXT = {"type": "string"}
STREAM = {
    "type": "string",
    "description": "With `stream`: server-sent events. The first tells who answers: all of the answer's members but"
    ' `text`, `finish_reason` and `usage`. Then `{"text": ...}` each, and at the end `{"done": true, "finish_reason",'
    ' "usage"}`, or `{"error", "code", "status"}` in its place.',
}

_chatless = Chatless()


@blueprint.operation("/vllm/services", "GET", "read", also=("infer",), conditional=True)
@blueprint.arguments(PageQuery(), location="query")
@blueprint.response(200, ServicePage)
def list_vllm_services(query: dict[str, Any]) -> Response:
    """List services that run vLLM, with their endpoints

    Those that start are among them, cancelled ones are not.
    """
    _, limit, cursor = paging.split(query)
    found, total, more = prompts.page(context(), limit, cursor)
    return answers.read({"services": found, "total": total, "next_cursor": more})


@blueprint.operation(f"/vllm/{ID}/models", "GET", "infer", also=("read",), errors=ERRORS)
@blueprint.response(200, LoadedModels)
def list_models_of_service(service_id: str) -> Response:
    """List the models that a service has loaded, as one of its replicas tells"""
    prompted = prompts.find(context(), actor(), service_id)
    conversation = _conversation(prompted)
    loaded = loaded_models(conversation)
    return answers.answer(
        {
            "success": True,
            "models": [one["id"] for one in loaded],
            "loaded": loaded,
            **_routed(prompted, conversation.replica_id),
        }
    )


@blueprint.operation(f"/vllm/{ID}/metrics", "GET", "read", also=("infer",), errors=(409, 502, 504))
@blueprint.response(200, TEXT, content_type="text/plain")
def get_metrics_of_vllm(service_id: str) -> Response:
    """Show the counters of all replicas of a service, for Prometheus

    As the engines write them, with the labels `service` and `replica`.
    """
    found = prompts.members(context(), actor(), service_id)
    return joined_metrics.answer(context(), *found)


@blueprint.operation(f"/vllm/{ID}/prompt", "POST", "infer", errors=(404, *ERRORS), replays=False)
@blueprint.arguments(PromptBody())
@blueprint.response(200, PromptAnswer)
@blueprint.alt_response(200, schema=STREAM, content_type=sse.MIMETYPE, success=True)
@counted
def prompt_service(count: Count, body: dict[str, Any], service_id: str) -> Response:
    """Send a prompt to a service

    The replica with the least to do answers; what it fails to begin is asked of another. Asked as a chat, or as a text
    to go on from where the model has no chat template. With `stream`, what fails before the first text has its own
    status.
    """
    prompted = prompts.find(context(), actor(), service_id, body["model"])
    count.model = prompted.target.name
    conversation = _conversation(prompted)
    prompting = Prompting(conversation, _prompt(body), _chatless, (prompted.service_id, prompted.revision))
    try:
        return _answered(prompted, prompting, count, stream=body["stream"])
    except NotOffered:
        # an update may have taken the model away since it was looked up: then that is what to tell
        prompts.find(context(), actor(), service_id, body["model"])
        raise


@blueprint.errorhandler(CallerLeft)
def _gone(_left: CallerLeft) -> Response:
    return Response(status=GONE)


def _answered(prompted: Prompted, prompting: Prompting, count: Count, *, stream: bool) -> Response:
    if stream:
        parts = prompting.stream()
        # with the first part the status is settled
        first = next(parts)
        told = _told(prompted, prompting)
        response = Response(count.following(_events(told, first, parts, count)), mimetype=sse.MIMETYPE)
        unbuffered = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        response.headers.update({**unbuffered, **_headers(prompting.conversation)})
        return response
    said = prompting.whole()
    count.tokens = (said.usage or {}).get("completion_tokens", 0)
    made = {"text": said.text, "finish_reason": said.finish_reason, "usage": said.usage}
    return answers.answer({**_told(prompted, prompting), **made}, headers=_headers(prompting.conversation))


def _conversation(prompted: Prompted) -> Conversation:
    settings = context().settings
    return Conversation(
        Door(Layout(settings.state_dir).inside_socket),
        prompted.target,
        {"X-Hostler-Key-Id": actor().key_id, "X-Request-Id": g.request_id},
        Caller.of_request(),
        settings.gateway_retries + 1,
    )


def _prompt(body: dict[str, Any]) -> Prompt:
    return Prompt(
        body["prompt"],
        body["system_prompt"] or "",
        body["max_tokens"] or DEFAULT_TOKENS,
        body["temperature"],
        body["top_p"],
        body["seed"],
        tuple(body["stop"] or ()),
    )


def _routed(prompted: Prompted, replica_id: str) -> dict[str, Any]:
    routed_to, model = prompts.answered(context(), prompted, replica_id)
    return {
        "routed_to": routed_to,
        "service_id": prompted.service_id,
        "group_id": prompted.group_id,
        "total_replicas": prompted.total,
        "replica_id": replica_id,
        "model": model,
    }


def _told(prompted: Prompted, prompting: Prompting) -> dict[str, Any]:
    routed = _routed(prompted, prompting.conversation.replica_id)
    return {"success": True, **routed, "endpoint_used": prompting.path}


def _headers(conversation: Conversation) -> dict[str, str]:
    return {"X-Hostler-Replica": conversation.replica_id} if conversation.replica_id else {}


def _events(told: dict[str, Any], first: Part, parts: Generator[Part], count: Count) -> Iterator[str]:
    """The events of a stream. Half of a surrogate pair waits for the other half."""
    held, finish_reason, usage = "", None, None
    # whoever stops reading ends it at the replica too
    with closing(parts):
        yield _event(told)
        for part in chain((first,), parts):
            text = held + part.text
            held = text[-1] if text and "\ud800" <= text[-1] <= "\udbff" and not part.done else ""
            text = whole_characters(text.removesuffix(held))
            if text:
                yield _event({"text": text})
            finish_reason, usage = part.finish_reason or finish_reason, part.usage or usage
            count.tokens = (usage or {}).get("completion_tokens", count.tokens + bool(part.text))
    if held:
        yield _event({"text": whole_characters(held)})
    yield _event({"done": True, "finish_reason": finish_reason, "usage": usage})


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, separators=(',', ':'))}\n\n"
