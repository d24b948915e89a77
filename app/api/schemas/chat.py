"""The chat: a prompt in, plain text out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import marshmallow as ma
from marshmallow import validate

from app.api.schemas.base import Body
from app.api.schemas.fields import Number, Whole
from app.api.schemas.inference import MOST_TOKENS
from app.errors import EmptyInput

#: Larger ones push every probability to one side; engines refuse what is not above 0.
MOST_PENALTY = 10
#: Counts where it was not sent and the engine knows it.
REPEAT_PENALTY = 1.1


class Chat(Body):
    """What to answer, as whom, and how."""

    prompt = ma.fields.String(
        required=True, validate=validate.Length(1), metadata={"example": "Name a famous Peruvian dish"}
    )
    system_prompt = ma.fields.String(
        load_default=None,
        metadata={"description": "Who answers, and how.", "example": "You are a helpful assistant."},
    )
    max_tokens = Whole(1, MOST_TOKENS, load_default=256, metadata={"description": "Most tokens to make."})
    temperature = Number(0, 100, load_default=0.8, metadata={"description": "0 picks the likeliest token."})
    top_p = Number(
        0,
        1,
        above=True,
        load_default=0.9,
        metadata={"description": "One of the likeliest tokens that together reach this probability.", "example": 0.9},
    )
    repeat_penalty = Number(
        0,
        MOST_PENALTY,
        above=True,
        load_default=None,
        metadata={
            "description": "1: none. More makes tokens that stood there before less likely.",
            "default": REPEAT_PENALTY,
            "example": REPEAT_PENALTY,
        },
    )

    def refuse(self, data: Mapping[str, Any]) -> None:
        if data.get("prompt") == "":
            raise EmptyInput(
                "prompt: it is empty. Send at least one character.", errors={"prompt": ["Must not be empty."]}
            )
