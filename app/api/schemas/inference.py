"""The model API: prompts in, tokens and text out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import marshmallow as ma
from marshmallow import validate

from app.api.schemas.base import Answer, Body
from app.api.schemas.fields import Number, Whole
from app.engines.dialects.base import Sampling, Strategy
from app.errors import EmptyInput, UnknownStrategy

STRATEGIES: tuple[str, ...] = get_args(Strategy)
#: An answer of more tokens is refused; the model's own context is most often shorter.
MOST_TOKENS = 131_072
#: Items of one batch.
MOST_ITEMS = 1024
#: Tokens that one batch may ask for, all prompts together: their ids and text are held until the last is made.
MOST_TOKENS_OF_BATCH = 1_048_576
DEFAULTS = Sampling(max_tokens=50)

MODEL_ID = ma.fields.String(
    validate=validate.Length(1, 200),
    metadata={"description": "The model, by name or alias. Left out: the default one.", "example": "tiny"},
)


class Tokenize(Body):
    """A text to be cut into tokens."""

    text = ma.fields.String(required=True, metadata={"example": "Hello, world!"})
    model_id = MODEL_ID


class BatchTokenize(Body):
    """Texts to be cut into tokens."""

    texts = ma.fields.List(
        ma.fields.String(),
        required=True,
        validate=validate.Length(1, MOST_ITEMS),
        metadata={"example": ["First text", "Second text"]},
    )
    model_id = MODEL_ID

    def refuse(self, data: Mapping[str, Any]) -> None:
        _refuse_empty_batch(data, "texts")


class _Sampled(Body):
    max_tokens = Whole(
        1, MOST_TOKENS, load_default=DEFAULTS.max_tokens, metadata={"description": "Most tokens to make."}
    )
    temperature = Number(
        0, 100, load_default=DEFAULTS.temperature, metadata={"description": "0 picks the likeliest token, as greedy."}
    )
    strategy = ma.fields.String(
        validate=validate.OneOf(STRATEGIES),
        load_default=DEFAULTS.strategy,
        metadata={
            "description": "`greedy`: the likeliest token, whatever the temperature. `top_k`: one of the `top_k`"
            " likeliest. `top_p`: one of the likeliest that together reach the probability `top_p`.",
        },
    )
    top_k = Whole(
        1, 1_000_000, load_default=DEFAULTS.top_k, metadata={"description": "Counts only in the strategy top_k."}
    )
    top_p = Number(
        0,
        1,
        above=True,
        load_default=DEFAULTS.top_p,
        metadata={"description": "Counts only in the strategy top_p.", "example": 0.9},
    )
    seed = Whole(
        -(2**63),
        2**63 - 1,
        load_default=None,
        allow_none=True,
        metadata={"description": "The same seed gives the same text. Left out: another text each time.", "example": 42},
    )
    model_id = MODEL_ID

    def refuse(self, data: Mapping[str, Any]) -> None:
        strategy = data.get("strategy", DEFAULTS.strategy)
        if strategy not in STRATEGIES:
            raise UnknownStrategy(
                f"strategy: {str(strategy)[:80]!r} is not known. Send {', '.join(STRATEGIES)}.",
                errors={"strategy": [f"One of {', '.join(STRATEGIES)}."]},
            )


class Generate(_Sampled):
    """A text to go on from, and how."""

    prompt = ma.fields.String(required=True, metadata={"example": "Once upon a time"})

    def refuse(self, data: Mapping[str, Any]) -> None:
        if data.get("prompt") == "":
            raise EmptyInput(
                "prompt: it is empty. Send at least one character.", errors={"prompt": ["Must not be empty."]}
            )
        super().refuse(data)


class BatchGenerate(_Sampled):
    """Texts to go on from, all in the same way."""

    prompts = ma.fields.List(
        ma.fields.String(),
        required=True,
        validate=validate.Length(1, MOST_ITEMS),
        metadata={"example": ["Hello", "Goodbye"]},
    )

    def refuse(self, data: Mapping[str, Any]) -> None:
        _refuse_empty_batch(data, "prompts")
        for index, prompt in enumerate(data["prompts"] if isinstance(data["prompts"], list) else []):
            if prompt == "":
                raise EmptyInput(
                    f"prompts[{index}]: it is empty. Send at least one character.",
                    errors={f"prompts.{index}": ["Must not be empty."]},
                    extra={"index": index},
                )
        super().refuse(data)

    @ma.validates_schema
    def check_size(self, data: Mapping[str, Any], **_: Any) -> None:
        asked = len(data["prompts"]) * data["max_tokens"]
        if asked > MOST_TOKENS_OF_BATCH:
            raise ma.ValidationError(
                f"{asked} tokens for the whole batch, more than {MOST_TOKENS_OF_BATCH}. Send fewer prompts at once.",
                "max_tokens",
            )


class Tokens(Answer):
    """A text as tokens."""

    token_ids = ma.fields.List(ma.fields.Integer(), required=True)
    num_tokens = ma.fields.Integer(required=True)


class TokensBatch(Answer):
    """Texts as tokens, in the order of the request."""

    results = ma.fields.List(ma.fields.Nested(Tokens), required=True)


class GeneratedText(Answer):
    """What the model made of a prompt; the prompt itself is not repeated."""

    token_ids = ma.fields.List(
        ma.fields.Integer(),
        required=True,
        metadata={"description": "The tokens made; empty where the engine does not tell them (docs/model-api.md)."},
    )
    text = ma.fields.String(required=True)
    num_generated = ma.fields.Integer(required=True, metadata={"description": "Tokens made."})
    finish_reason = ma.fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "`length`: max_tokens or the context was reached; `stop`: the model ended it."},
    )


class GeneratedBatch(Answer):
    """Texts in the order of the request's prompts."""

    results = ma.fields.List(ma.fields.Nested(GeneratedText), required=True)


class ServedModel(Answer):
    """A model that can be asked for as `model_id`."""

    id = ma.fields.String(required=True)
    name = ma.fields.String(required=True)
    description = ma.fields.String(required=True, metadata={"description": "Its engine, and how many replicas serve."})
    format = ma.fields.String(required=True, metadata={"description": "Such as GGUF; `unknown` where nobody said."})
    loaded = ma.fields.Boolean(required=True, metadata={"description": "Whether a replica of it is ready."})


class ServedModels(Answer):
    """All models that the key may ask for, by name."""

    models = ma.fields.List(ma.fields.Nested(ServedModel), required=True)


def _refuse_empty_batch(data: Mapping[str, Any], field: str) -> None:
    if data.get(field) == []:
        raise EmptyInput(f"{field}: it is empty. Send at least one item.", errors={field: ["Must not be empty."]})
