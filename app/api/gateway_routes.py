"""The routes that the gateway answers without the control API, for the document: they are callers' routes too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.api.blueprint import response_name

#: Marks an operation that never reaches the control API.
SERVED_BY = "x-served-by"
ERRORS = (400, 401, 403, 404, 413, 415, 422, 429, 502, 503, 504)
_OBJECT = {"type": "object"}
_ANY = {"application/json": {"schema": _OBJECT}, "text/event-stream": {"schema": {"type": "string"}}}
_REPLICA = {"name": "X-Hostler-Replica", "in": "header", "schema": {"type": "string"}, "description": "This one alone."}
_SERVICE = {
    "name": "X-Hostler-Service",
    "in": "header",
    "schema": {"type": "string"},
    "description": "To the replicas of this service, by its id or name, whatever the body says.",
}
_MODEL = {
    "type": "object",
    "properties": {"id": {"type": "string"}, "object": {"const": "model"}, "owned_by": {"type": "string"}},
}
_MODELS = {
    "type": "object",
    "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": _MODEL}},
}
_ASKED = {
    "type": "object",
    "required": ["model"],
    "properties": {"model": {"type": "string", "description": "A model or an alias; it decides who answers."}},
}

#: path -> (operation id, what it does)
_INFERENCE = {
    "/v1/chat/completions": ("v1_chat_completions", "Chat, as OpenAI's API has it; streams too"),
    "/v1/completions": ("v1_completions", "Complete a text, as OpenAI's API has it; streams too"),
    "/v1/embeddings": ("v1_embeddings", "Embed texts, as OpenAI's API has it"),
    "/v1/responses": ("v1_responses", "Respond, as OpenAI's API has it, where the engine does"),
    "/v1/{path}": ("v1_other", "Any other route of the engine, to a ready replica of the model in the body"),
}


def paths() -> dict[str, dict[str, Any]]:
    """``paths`` of the document that are the gateway's."""
    listed = _get("v1_models", "List what is ready and the key may use", _MODELS)
    one = _get("v1_model", "Show a model that is ready", _MODEL) | {"parameters": [_in_path("model")]}
    found = {"/v1/models": {"get": listed}, "/v1/models/{model}": {"get": one}}
    for path, (name, summary) in _INFERENCE.items():
        more = [_in_path("path")] if "{path}" in path else []
        operation = _operation(name, summary, _ANY, _ASKED) | {"parameters": [*more, _SERVICE, _REPLICA]}
        found[path] = {"post": operation}
    found["/api/v1/replicas/{replica_id}/proxy/{path}"] = {
        method: _operation(
            f"replica_proxy_{method}", "One replica's own API; WebSockets too, and never sent twice", _ANY
        )
        | {"parameters": [_in_path("replica_id"), _in_path("path")]}
        for method in ("get", "post", "put", "patch", "delete")
    }
    return found


def _get(name: str, summary: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return _operation(name, summary, {"application/json": {"schema": schema}})


def _operation(
    name: str, summary: str, content: Mapping[str, Any], body: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    errors = {str(status): {"$ref": f"#/components/responses/{response_name(status)}"} for status in ERRORS}
    operation: dict[str, Any] = {
        "summary": summary,
        "operationId": name,
        "tags": ["gateway"],
        "x-required-role": "infer",
        SERVED_BY: "gateway",
        "responses": {"200": {"description": "OK", "content": content}, **errors},
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return operation


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
