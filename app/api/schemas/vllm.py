"""Prompts to services, and what they answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import marshmallow as ma
from marshmallow import validate

from app.api.schemas.base import Answer, Body
from app.api.schemas.fields import Flag, Number, Whole
from app.api.schemas.inference import MOST_TOKENS
from app.engines.dialects.prompts import CHAT, COMPLETIONS
from app.errors import EmptyInput

DEFAULT_TOKENS = 256
MOST_STOPS = 4


def _optional(kind: type[ma.fields.Field], *args: Any, description: str, **more: Any) -> ma.fields.Field:
    """A field that null leaves out as well."""
    return kind(*args, load_default=None, allow_none=True, metadata={"description": description}, **more)


class PromptBody(Body):
    """A text for a service's model, and how to go on from it."""

    prompt = ma.fields.String(required=True, metadata={"example": "Tell me a joke about programming"})
    system_prompt = _optional(ma.fields.String, description="Said before it, by the system.")
    model = _optional(
        ma.fields.String,
        validate=validate.Length(1, 200),
        description="The service's model, by name or alias; another is refused. Left out: the service's.",
    )
    max_tokens = _optional(Whole, 1, MOST_TOKENS, description=f"Most tokens to make; {DEFAULT_TOKENS} where left out.")
    temperature = _optional(Number, 0, 100, description="0 picks the likeliest token. Left out: the model's own.")
    top_p = _optional(
        Number, 0, 1, above=True, description="Only of the likeliest tokens that together reach this probability."
    )
    seed = _optional(Whole, -(2**63), 2**63 - 1, description="The same seed gives the same text.")
    stop = _optional(
        ma.fields.List,
        ma.fields.String(validate=validate.Length(1, 200)),
        validate=validate.Length(0, MOST_STOPS),
        description="Texts that end the answer.",
    )
    stream = Flag(load_default=False, metadata={"description": "Send the text as it is made, as server-sent events."})

    def refuse(self, data: Mapping[str, Any]) -> None:
        if data.get("prompt") == "":
            raise EmptyInput(
                "prompt: it is empty. Send at least one character.", errors={"prompt": ["Must not be empty."]}
            )


class Usage(Answer):
    """Tokens, as far as the engine tells."""

    prompt_tokens = ma.fields.Integer()
    completion_tokens = ma.fields.Integer()
    total_tokens = ma.fields.Integer()


class Routed(Answer):
    """Which replica of a service answered."""

    service_id = ma.fields.String(required=True)
    group_id = ma.fields.String(
        required=True, allow_none=True, metadata={"description": "The service's id; null for a service of one."}
    )
    total_replicas = ma.fields.Integer(required=True, metadata={"description": "As many as are wanted."})
    replica_id = ma.fields.String(required=True)
    routed_to = ma.fields.String(required=True, metadata={"example": "3f9a01c2d4e5:20007"})
    model = ma.fields.String(required=True)


class PromptAnswer(Routed):
    """What the model made of a prompt."""

    success = ma.fields.Boolean(required=True, metadata={"description": "Always true: what fails is a problem."})
    text = ma.fields.String(required=True)
    finish_reason = ma.fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "`length`: max_tokens was reached; `stop`: the model ended it."},
    )
    endpoint_used = ma.fields.String(
        required=True,
        validate=validate.OneOf([CHAT, COMPLETIONS]),
        metadata={"description": "The replica's route: the second where the model has no chat template."},
    )
    usage = ma.fields.Nested(Usage, required=True, allow_none=True)


class LoadedModel(Answer):
    """A model as its engine tells of it."""

    id = ma.fields.String(required=True)
    max_model_len = ma.fields.Integer(required=True, allow_none=True, metadata={"description": "Tokens of context."})


class LoadedModels(Routed):
    """What one replica of the service has loaded; all of them load the same."""

    success = ma.fields.Boolean(required=True)
    models = ma.fields.List(ma.fields.String(), required=True, metadata={"description": "By name."})
    loaded = ma.fields.List(ma.fields.Nested(LoadedModel), required=True)
