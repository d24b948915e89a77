"""One inference call: what is asked, in no protocol yet."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from hostler.errors import BadInput
from hostler.inference.tensors import Tensor, tensors_of


@dataclass(frozen=True)
class Question:
    """``request_id`` is the same when it is asked a second time: a server that looks can tell."""

    model_name: str
    model_version: str
    tensors: list[Tensor]
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)


def question_of(model_name: object, inputs: object, model_version: str = "") -> Question:
    """Raises BadInput, before anybody is asked, for what cannot be asked."""
    if not isinstance(model_name, str) or not model_name or model_name in (".", ".."):
        raise BadInput(f"{model_name!r} is no name of a model")
    return Question(model_name, str(model_version), tensors_of(inputs))
