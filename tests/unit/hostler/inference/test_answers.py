"""What servers answer, also wrongly, over both protocols."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tritonclient.grpc import InferResult, service_pb2
from tritonclient.utils import InferenceServerException

from hostler.errors import InferenceRefused, InferenceTimedOut, ServerFailed
from hostler.inference import grpc_v2, http_v2
from hostler.inference.endpoint import parse_endpoint
from hostler.inference.question import question_of


def over_http(status: int, body: Any) -> Any:
    return http_v2.outputs_of(status, body if isinstance(body, bytes) else json.dumps(body).encode())


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [2, 1], "datatype": "INT32", "data": [1, 2], **changes}


@pytest.mark.parametrize("data", [[1, 2], [[1], [2]]])
def test_http_data_may_be_flat_or_nested(data: Any) -> None:
    assert over_http(200, {"outputs": [tensor(data=data)]}) == {"x": [[1], [2]]}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'"outputs"',
        {"outputs": None},
        {"outputs": [1]},
        {"outputs": [tensor(shape=[3])]},
        {"outputs": [tensor(shape=None)]},
        {"outputs": [tensor(data="ab")]},
        {"outputs": [{"name": "x"}]},
    ],
    ids=repr,
)
def test_http_answers_that_are_none(body: Any) -> None:
    with pytest.raises(ServerFailed, match="none of the Open Inference Protocol"):
        over_http(200, body)


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 429, 501])
def test_http_refusals(status: int) -> None:
    with pytest.raises(InferenceRefused, match="because") as caught:
        over_http(status, {"error": "because"})
    assert caught.value.status == str(status)


@pytest.mark.parametrize("status", [301, 500, 502, 503, 504])
def test_http_failures(status: int) -> None:
    with pytest.raises(ServerFailed, match=str(status)):
        over_http(status, b"Internal Server Error")


@pytest.mark.parametrize(
    "endpoint, version, url",
    [
        ("h:1", "", "http://h:1/v2/models/a%2Fb/infer"),
        ("https://h", "2", "https://h:443/v2/models/a%2Fb/versions/2/infer"),
        ("http://[::1]:8000/base/", "", "http://[::1]:8000/base/v2/models/a%2Fb/infer"),
    ],
)
def test_where_the_question_goes(endpoint: str, version: str, url: str) -> None:
    assert http_v2.url_of(parse_endpoint(endpoint), question_of("a/b", {"x": [1]}, version)) == url


def over_grpc(*outputs: dict[str, Any], raw: tuple[bytes, ...] = ()) -> Any:
    response = service_pb2.ModelInferResponse(raw_output_contents=raw)
    for output in outputs:
        contents = service_pb2.InferTensorContents(**output.pop("contents", {}))
        response.outputs.append(service_pb2.ModelInferResponse.InferOutputTensor(contents=contents, **output))
    return grpc_v2.outputs_of(InferResult(response))


@pytest.mark.parametrize(
    "datatype, field, values",
    [
        ("BOOL", "bool_contents", [True, False]),
        ("INT8", "int_contents", [1, -2]),
        ("INT64", "int64_contents", [2**62, 0]),
        ("UINT16", "uint_contents", [1, 2]),
        ("UINT64", "uint64_contents", [2**63, 0]),
        ("FP32", "fp32_contents", [0.5, 1.5]),
        ("FP64", "fp64_contents", [0.1, 1.5]),
    ],
)
def test_grpc_typed_contents(datatype: str, field: str, values: list[Any]) -> None:
    # tritonclient's own as_numpy gives an empty array for these
    assert over_grpc({"name": "x", "datatype": datatype, "shape": [2], "contents": {field: values}}) == {"x": values}


def test_grpc_typed_bytes() -> None:
    output = {"name": "x", "datatype": "BYTES", "shape": [2], "contents": {"bytes_contents": [b"a", b"\xff"]}}
    assert over_grpc(output) == {"x": ["a", b"\xff"]}


def test_grpc_raw_contents() -> None:
    text, numbers = (
        {"name": "t", "datatype": "BYTES", "shape": [1, 2]},
        {"name": "n", "datatype": "INT16", "shape": [2]},
    )
    half = {"name": "h", "datatype": "BF16", "shape": [1]}
    raw = (b"\x01\0\0\0a\x02\0\0\0\xc3\xbc", b"\x01\0\xff\xff", b"\xc0\x3f")
    assert over_grpc(text, numbers, half, raw=raw) == {"t": [["a", "ü"]], "n": [1, -1], "h": [1.5]}


@pytest.mark.parametrize(
    "datatype, shape, raw",
    [
        ("BYTES", [1], b"\x05\0\0\0a"),
        ("BYTES", [1], b"\x05\0"),
        ("BYTES", [2], b"\x01\0\0\0a"),
        ("INT32", [1], b"\0\0\0"),
        ("INT32", [2], b"\0\0\0\0"),
        ("INT32", [-1], b"\0\0\0\0"),
        ("ODD", [1], b"\0"),
        ("ODD", [1], b""),
    ],
)
def test_grpc_answers_that_are_none(datatype: str, shape: list[int], raw: bytes) -> None:
    with pytest.raises(ServerFailed, match="none of the Open Inference Protocol"):
        over_grpc({"name": "x", "datatype": datatype, "shape": shape}, raw=(raw,) if raw else ())


def test_grpc_contents_for_other_outputs() -> None:
    with pytest.raises(ServerFailed, match="2 contents for 1 outputs"):
        over_grpc({"name": "x", "datatype": "INT32", "shape": [1]}, raw=(b"\0\0\0\0", b""))


@pytest.mark.parametrize(
    "status, kind",
    [
        ("UNAVAILABLE", ServerFailed),
        ("INTERNAL", ServerFailed),
        ("UNKNOWN", ServerFailed),
        ("CANCELLED", ServerFailed),
        ("INVALID_ARGUMENT", InferenceRefused),
        ("NOT_FOUND", InferenceRefused),
        ("UNIMPLEMENTED", InferenceRefused),
        ("UNAUTHENTICATED", InferenceRefused),
        ("RESOURCE_EXHAUSTED", InferenceRefused),
        ("DEADLINE_EXCEEDED", InferenceTimedOut),
    ],
)
def test_grpc_errors(status: str, kind: type[Exception]) -> None:
    error = grpc_v2.failure(InferenceServerException("why", status=f"StatusCode.{status}"), 3)
    assert type(error) is kind
    assert error.status == status
