"""Models that could be served: what vLLM knows, and what the hub has, each with a verdict on whether they fit."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any, cast

from huggingface_hub import HfApi, ModelInfo
from huggingface_hub.hf_api import ExpandModelProperty_T

from app.engines import vllm_architectures, vllm_models
from app.engines.flags import HUB_NAME
from app.errors import UnknownHubModel
from app.hub.asking import ask, endpoint_of
from app.hub.call import HubNonsense
from app.hub.shelf import Shelf
from app.usecases.context import Context

#: What is asked for of each model: without such a list the hub sends every file's name.
_FIELDS: list[ExpandModelProperty_T] = ["author", "config", "createdAt", "downloads", "gated", "lastModified"]
_FIELDS += ["library_name", "likes", "pipeline_tag", "private", "tags"]
_MORE_FIELDS: list[ExpandModelProperty_T] = [*_FIELDS, "disabled", "safetensors", "sha"]
#: Of what a stranger's model says of itself.
_LONGEST_TEXT = 200
_MOST_TAGS = 20
_LARGEST_COUNT = 2**63
_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}

_shelf = Shelf()


def available(context: Context) -> dict[str, Any]:
    """Which architectures vLLM serves, and models to begin with. Asks nobody."""
    return {
        "model_source": f"HuggingFace Hub ({endpoint_of(context.settings)})",
        "vllm_version": vllm_architectures.VLLM_VERSION,
        "supported_architectures": {task: sorted(names) for task, names in vllm_models.TASKS.items()},
        "default_model": vllm_models.DEFAULT_MODEL,
        "examples": {words: name for words, name, _ in vllm_models.EXAMPLES},
        "models": [
            {"id": name, "description": words, "architecture": architecture}
            for words, name, architecture in vllm_models.EXAMPLES
        ],
    }


def search(context: Context, query: str, limit: int) -> list[dict[str, Any]]:
    """Models whose names hold ``query``, the most downloaded first. Raises HubUnavailable, HubBadAnswer."""
    question = partial(_search, query=query, limit=limit)
    look = partial(ask, context.settings, question, of_one_model=False)
    found = _shelf.get(("search", *_hub(context), query, limit), look)
    return cast(list[dict[str, Any]], found)


def info(context: Context, name: str) -> dict[str, Any]:
    """One model. Raises HubUnavailable, HubBadAnswer, UnknownHubModel, GatedModel."""
    if not HUB_NAME.fullmatch(name):
        raise UnknownHubModel(
            f"{name[:_LONGEST_TEXT]!r} cannot be a model's name on the hub: it is organisation/model, or a model alone."
        )
    look = partial(ask, context.settings, partial(_info, name=name), of_one_model=True)
    found = _shelf.get(("info", *_hub(context), name), look)
    return cast(dict[str, Any], found)


def _hub(context: Context) -> tuple[str, str]:
    return endpoint_of(context.settings), context.settings.hf_token


def _search(api: HfApi, *, query: str, limit: int) -> list[dict[str, Any]]:
    found = api.list_models(search=query or None, sort="downloads", limit=limit, expand=_FIELDS)
    return [_shown(one) for one in found]


def _info(api: HfApi, *, name: str) -> dict[str, Any]:
    found = api.model_info(name, expand=_MORE_FIELDS)
    config = _mapping(found.config)
    tokenizer = _mapping(config.get("tokenizer_config"))
    weights = _mapping(found.safetensors.parameters) if found.safetensors is not None else {}
    counts = {kind: number for kind, number in weights.items() if _count(number) is not None}
    size_bytes = sum(number * _BYTES.get(kind, 1) for kind, number in counts.items()) or None
    return {
        **_shown(found),
        "sha": _text(found.sha),
        "disabled": bool(found.disabled),
        "model_type": _text(config.get("model_type")),
        "has_chat_template": bool(tokenizer.get("chat_template") or config.get("chat_template_jinja")),
        "parameters": sum(counts.values()) or None,
        "size_bytes": size_bytes,
        "size_gb": round(size_bytes / 2**30, 2) if size_bytes else None,
    }


def _shown(found: ModelInfo) -> dict[str, Any]:
    if not HUB_NAME.fullmatch(found.id):
        raise HubNonsense("it names a model by what is no name")
    gated = found.gated if found.gated in ("auto", "manual") else bool(found.gated)
    names = _list(_mapping(found.config).get("architectures"))[:_MOST_TAGS]
    verdict = vllm_models.judge([one[:_LONGEST_TEXT] for one in names if isinstance(one, str)], hidden=bool(gated))
    return {
        "id": found.id,
        "author": _text(found.author),
        "architecture": verdict.architecture,
        "vllm_compatible": verdict.compatible,
        "compatibility": verdict.why,
        "task_type": verdict.task,
        "pipeline_tag": _text(found.pipeline_tag),
        "library_name": _text(found.library_name),
        "downloads": _count(found.downloads),
        "likes": _count(found.likes),
        "tags": [_text(one) for one in _list(found.tags)[:_MOST_TAGS] if isinstance(one, str)],
        "gated": gated,
        "private": bool(found.private),
        "created_at": _time(found.created_at),
        "last_modified": _time(found.last_modified),
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    return value[:_LONGEST_TEXT] if isinstance(value, str) else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < _LARGEST_COUNT else None


def _time(value: Any) -> datetime | None:
    return value if isinstance(value, datetime) else None
