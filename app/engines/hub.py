"""What engines have in common that load models as transformers do: by a name on the hub, or from a folder."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

from app.engines.base import EngineRequest, ExitCause
from app.engines.flags import HUB_NAME as HUB_NAME
from app.engines.schema import refuse
from app.errors import InvalidConfig

#: Names that any user may set. HF_ENDPOINT is not among them: it decides who the hub is.
HUB_ENV = frozenset(
    {
        "HF_TOKEN",
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "TOKENIZERS_PARALLELISM",
        "PYTORCH_CUDA_ALLOC_CONF",
        "NCCL_DEBUG",
        "NCCL_IB_DISABLE",
        "NCCL_P2P_DISABLE",
        "NCCL_SOCKET_IFNAME",
        "OMP_NUM_THREADS",
        "TZ",
    }
)
#: How the two say that memory ran out: of the GPU, or for the KV cache.
_WANT_OF_MEMORY = (
    "CUDA out of memory",
    "torch.OutOfMemoryError",
    "No available memory for the cache blocks",
    "is larger than the maximum number of tokens that can be stored in KV cache",
    "Not enough memory. Please try to increase --mem-fraction-static",
)


def is_path(source: str) -> bool:
    """Whether a model's source is written as a path: then it is one, and never looked up on the hub."""
    return source.startswith(("/", "."))


def hub_model(request: EngineRequest) -> str:
    """What to load: the catalogue's folder, or the name on the hub (the model's own name when it has no source)."""
    source = request.source or request.model_name
    if is_path(source) or HUB_NAME.fullmatch(source):
        return source
    raise InvalidConfig(
        f"{source!r} is no name on the hub (organisation/model) and no path. Correct the model's source.",
        errors={"model_name": ["Its source is no name on the hub and no path."]},
    )


def served_names(request: EngineRequest) -> tuple[str, ...]:
    """What requests may call the model by. Raises InvalidConfig for a name that cannot be an argument."""
    names = (request.model_name, *request.other_names)
    if any(name.startswith("-") or "{folder}" in name for name in names):
        told = "As an argument it would mean something else: no name or alias may start with - or hold {folder}."
        raise InvalidConfig(told, errors={"model_name": [told]})
    return names


def gpus_needed(config: Mapping[str, Any]) -> int | None:
    """The GPUs of a config that says how many share a layer; None where that is left to what it is given."""
    return _size(config, "tensor") * _others(config) if config.get("tensor_parallel_size") else None


def settled(config: Mapping[str, Any], gpus: int) -> dict[str, Any]:
    """The config with what it leaves open: each layer is shared by all GPUs there are. Raises InvalidConfig."""
    known = dict(config)
    if known.get("max_num_seqs") is None and "max_batch_size" in known:
        known["max_num_seqs"] = known["max_batch_size"]
    if gpus and not known.get("tensor_parallel_size"):
        if gpus % _others(known):
            words = f"{gpus} GPUs cannot be shared by {_others(known)} stages or copies"
            refuse({"pipeline_parallel_size": [words]})
        known["tensor_parallel_size"] = gpus // _others(known)
    return known


def _others(config: Mapping[str, Any]) -> int:
    return math.prod(_size(config, kind) for kind in ("pipeline", "data"))


def _size(config: Mapping[str, Any], kind: str) -> int:
    return int(config.get(f"{kind}_parallel_size") or 1)


def surroundings(request: EngineRequest) -> dict[str, str]:
    """Where downloads and compiled kernels are kept, and where the tools are found that compile them.

    Not in the attempt's folder, which goes with the attempt; and beside the program, as in an activated environment.
    """
    found = {"XDG_CACHE_HOME": str(request.cache_dir)} if request.cache_dir else {}
    folder = os.path.dirname(request.program[0]) if request.program else ""
    return {**found, "PATH": f"{folder}{os.pathsep}{{path}}"} if folder else found


def out_of_memory(log_tail: str) -> ExitCause | None:
    """The line that says so, if one does."""
    for line in reversed(log_tail.splitlines()):
        if any(words in line for words in _WANT_OF_MEMORY):
            return ExitCause("out_of_memory", line.strip()[-300:])
    return None
