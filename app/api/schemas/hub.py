"""Models of the hub, and whether vLLM serves them."""

from __future__ import annotations

import marshmallow as ma
from marshmallow import validate

from app.api.schemas.base import Answer
from app.api.schemas.fields import Text
from app.engines.vllm_models import TASKS


class HubQuery(ma.Schema):
    """What to look for."""

    query = Text(0, 200, load_default="", metadata={"description": "Part of a name. Left out: any.", "example": "qwen"})
    limit = ma.fields.Integer(
        load_default=20, validate=validate.Range(1, 100), metadata={"description": "Most models to show."}
    )


class ExampleModel(Answer):
    """A model to begin with."""

    id = ma.fields.String(required=True, metadata={"example": "gpt2"})
    description = ma.fields.String(required=True)
    architecture = ma.fields.String(required=True)


class AvailableModels(Answer):
    """What vLLM can serve."""

    model_source = ma.fields.String(required=True)
    vllm_version = ma.fields.String(required=True, metadata={"description": "Whose architectures these are."})
    supported_architectures = ma.fields.Dict(
        keys=ma.fields.String(validate=validate.OneOf(list(TASKS))),
        values=ma.fields.List(ma.fields.String()),
        required=True,
        metadata={"description": "By what their models do. `pooling`: vectors, scores or labels; they take no prompt."},
    )
    default_model = ma.fields.String(required=True, metadata={"description": "Served when none is named."})
    examples = ma.fields.Dict(
        keys=ma.fields.String(), values=ma.fields.String(), required=True, metadata={"description": "Words: name."}
    )
    models = ma.fields.List(ma.fields.Nested(ExampleModel), required=True)


def _shown(kind: type[ma.fields.Field], description: str) -> ma.fields.Field:
    return kind(required=True, allow_none=True, metadata={"description": description})


class HubModel(Answer):
    """A model as the hub tells of it; null where it does not tell."""

    id = ma.fields.String(required=True, metadata={"example": "Qwen/Qwen2.5-7B-Instruct"})
    author = _shown(ma.fields.String, "Whose it is.")
    architecture = _shown(ma.fields.String, "From its config: what vLLM judges it by.")
    vllm_compatible = _shown(ma.fields.Boolean, "Null where nobody can say, as for a gated model without its config.")
    compatibility = ma.fields.String(required=True, metadata={"description": "Why, in words."})
    task_type = ma.fields.String(
        required=True, allow_none=True, validate=validate.OneOf(list(TASKS)), metadata={"description": "What it does."}
    )
    pipeline_tag = _shown(ma.fields.String, "What the hub files it under.")
    library_name = _shown(ma.fields.String, "The library it was made for.")
    downloads = _shown(ma.fields.Integer, "Of the last 30 days.")
    likes = _shown(ma.fields.Integer, "On the hub.")
    tags = ma.fields.List(ma.fields.String(), required=True, metadata={"description": "The first twenty."})
    gated = ma.fields.Raw(
        required=True,
        metadata={
            "oneOf": [{"type": "boolean"}, {"enum": ["auto", "manual"]}],
            "description": "Whether it must be asked for on the hub, and how that is granted.",
        },
    )
    private = ma.fields.Boolean(required=True)
    created_at = _shown(ma.fields.DateTime, "On the hub.")
    last_modified = _shown(ma.fields.DateTime, "On the hub.")


class HubModels(Answer):
    """Models, the most downloaded first."""

    models = ma.fields.List(ma.fields.Nested(HubModel), required=True)
    total = ma.fields.Integer(required=True, metadata={"description": "Models shown; the hub may have more."})
    query = ma.fields.String(required=True)


class HubModelInfo(HubModel):
    """A model with what the hub knows of its files."""

    sha = _shown(ma.fields.String, "Its newest commit.")
    disabled = ma.fields.Boolean(required=True)
    model_type = _shown(ma.fields.String, "Of its config.")
    has_chat_template = ma.fields.Boolean(
        required=True, metadata={"description": "Without one a prompt is completed, not answered."}
    )
    parameters = _shown(ma.fields.Integer, "Numbers in its weights.")
    size_bytes = _shown(ma.fields.Integer, "Of its weights.")
    size_gb = _shown(ma.fields.Float, "Of its weights, in GiB: what a GPU must hold at least.")
