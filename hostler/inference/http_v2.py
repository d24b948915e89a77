"""The protocol over HTTP: JSON bodies out and in, and what its answers mean. Nothing is sent from here."""

from __future__ import annotations

import json
import math
from typing import Any
from urllib.parse import quote

from hostler.errors import BadInput, InferenceError, InferenceRefused, ServerFailed
from hostler.inference.endpoint import Endpoint
from hostler.inference.question import Question
from hostler.inference.tensors import MOST_DIMENSIONS, Tensor, shaped

Json = dict[str, Any]
_OTHERWISE = "give the client protocol='grpc'"


def url_of(endpoint: Endpoint, question: Question) -> str:
    """Where the question is posted."""
    version = f"/versions/{quote(question.model_version, safe='')}" if question.model_version else ""
    scheme = "https" if endpoint.tls else "http"
    return (
        f"{scheme}://{endpoint.authority}{endpoint.path}/v2/models/{quote(question.model_name, safe='')}{version}/infer"
    )


def body_of(question: Question) -> Json:
    """The request. Raises BadInput for values that JSON cannot hold."""
    return {"id": question.request_id, "inputs": [_input(tensor) for tensor in question.tensors]}


def outputs_of(status: int, content: bytes) -> Json:
    """Name to nested lists. Raises InferenceRefused or ServerFailed for every other answer."""
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    if status != 200:
        raise _failure(status, body)
    try:
        return {str(tensor["name"]): _output(tensor) for tensor in body["outputs"]}
    except (KeyError, TypeError, ValueError) as error:
        raise ServerFailed(f"the answer is none of the Open Inference Protocol ({error!r})", status="200") from error


def _input(tensor: Tensor) -> Json:
    if tensor.datatype == "BYTES":
        try:
            data = [value.decode("utf-8") for value in tensor.values]
        except UnicodeDecodeError as error:
            raise BadInput(f"input {tensor.name!r} holds bytes that are no text: {_OTHERWISE}") from error
    else:
        data = tensor.values if isinstance(tensor.values, list) else tensor.values.tolist()
        if tensor.datatype.startswith(("FP", "BF")) and not all(map(math.isfinite, data)):
            raise BadInput(f"input {tensor.name!r} holds numbers that JSON has not (NaN, infinity): {_OTHERWISE}")
    return {"name": tensor.name, "shape": list(tensor.shape), "datatype": tensor.datatype, "data": data}


def _output(tensor: Json) -> list[Any]:
    return shaped([int(size) for size in tensor["shape"]], _flat(tensor["data"], 0))


def _flat(data: Any, depth: int) -> list[Any]:
    """The elements; servers may nest them by row."""
    if not isinstance(data, list) or depth > MOST_DIMENSIONS:
        raise ValueError("data is no list")
    if not any(isinstance(item, list) for item in data):
        return data
    return [leaf for item in data for leaf in _flat(item, depth + 1)]


def _failure(status: int, body: Any) -> InferenceError:
    said = body.get("error") or body.get("detail") if isinstance(body, dict) else None
    message = f"{said} (HTTP {status})" if isinstance(said, str) else f"HTTP {status}"
    # 501 is of the call; what redirects is not the server that was registered
    kind = InferenceRefused if 400 <= status < 500 or status == 501 else ServerFailed
    return kind(message, status=str(status))
