"""The protocol over gRPC, in the words of ``tritonclient``. Needs the extra: ``pip install 'hostler[grpc]'``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy
import tritonclient.grpc
import tritonclient.grpc.aio
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from hostler.errors import InferenceError, InferenceRefused, InferenceTimedOut, ServerFailed
from hostler.inference.endpoint import Endpoint
from hostler.inference.question import Question
from hostler.inference.tensors import Tensor, shaped, text_or_bytes

Json = dict[str, Any]
MOST_BYTES = 2**31 - 1
#: The server was at fault or away: another one may do it. With all others it is the call, or a limit that it is over.
_SERVERS_FAULT = frozenset({"UNAVAILABLE", "INTERNAL", "UNKNOWN", "ABORTED", "CANCELLED", "DATA_LOSS"})
#: Where the plain form of a tensor holds its elements, by datatype.
_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def channel(endpoint: Endpoint) -> Any:
    """A blocking client of ``endpoint``; connects when first asked."""
    return tritonclient.grpc.InferenceServerClient(**_options(endpoint))


def async_channel(endpoint: Endpoint) -> Any:
    """The same for asyncio; to be made inside its loop."""
    return tritonclient.grpc.aio.InferenceServerClient(**_options(endpoint))


def arguments(question: Question, timeout_s: float) -> Json:
    """What a channel's ``infer`` is called with."""
    return {
        "model_name": question.model_name,
        "model_version": question.model_version,
        "inputs": [_input(tensor) for tensor in question.tensors],
        "request_id": question.request_id,
        "client_timeout": timeout_s,
    }


def outputs_of(result: Any) -> Json:
    """Name to nested lists. Raises ServerFailed when the answer contradicts itself."""
    response = result.get_response()
    raw = list(response.raw_output_contents)
    try:
        if raw and len(raw) != len(response.outputs):
            raise ValueError(f"{len(raw)} contents for {len(response.outputs)} outputs")
        return {
            output.name: shaped(list(output.shape), _values(output, raw[place] if raw else None))
            for place, output in enumerate(response.outputs)
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ServerFailed(f"the answer is none of the Open Inference Protocol ({error})", status="OK") from error


def failure(error: InferenceServerException, timeout_s: float) -> InferenceError:
    """What an error of the channel means."""
    status = str(error.status() or "").removeprefix("StatusCode.")
    if status == "DEADLINE_EXCEEDED":
        return InferenceTimedOut(f"no answer after {timeout_s:g} s", status=status)
    message = f"{error.message() or 'no reason was given'} ({status or 'not sent'})"
    return (ServerFailed if status in _SERVERS_FAULT else InferenceRefused)(message, status=status)


def _options(endpoint: Endpoint) -> Json:
    channel_args = [
        ("grpc.max_send_message_length", MOST_BYTES),
        ("grpc.max_receive_message_length", MOST_BYTES),
        # a server that is back on the same port must not wait for another channel's pause after its death
        ("grpc.use_local_subchannel_pool", 1),
        # a proxy named in the environment is for what is beyond this host
        ("grpc.enable_http_proxy", 0 if endpoint.loopback else 1),
    ]
    # with its scheme, or a host named "unix" would be a path
    return {"url": f"dns:///{endpoint.authority}", "ssl": endpoint.tls, "channel_args": channel_args}


def _input(tensor: Tensor) -> Any:
    kind = numpy.object_ if tensor.datatype == "BYTES" else triton_to_np_dtype(tensor.datatype)
    array = numpy.empty(len(tensor.values), dtype=kind)
    array[:] = tensor.values
    built = tritonclient.grpc.InferInput(tensor.name, list(tensor.shape), tensor.datatype)
    return built.set_data_from_numpy(array.reshape(tensor.shape))


def _values(output: Any, raw: bytes | None) -> list[Any]:
    if raw is None:
        return [_plain(value) for value in getattr(output.contents, _CONTENTS[output.datatype])]
    if output.datatype != "BYTES":
        kind = triton_to_np_dtype(output.datatype)
        if kind is None:
            raise ValueError(f"unknown datatype {output.datatype}")
        values: list[Any] = numpy.frombuffer(raw, dtype=kind).tolist()
        return values
    return [text_or_bytes(value) for value in _byte_elements(raw)]


def _byte_elements(raw: bytes) -> Iterator[bytes]:
    """The elements of a raw BYTES tensor, each with its length before it. ValueError where one is cut off."""
    at = 0
    while at < len(raw):
        start = at + 4
        at = start + int.from_bytes(raw[at:start], "little")
        if at > len(raw) or start > len(raw):
            raise ValueError("BYTES are cut off")
        yield raw[start:at]


def _plain(value: Any) -> Any:
    return text_or_bytes(value) if isinstance(value, bytes) else value
