"""Every engine Hostler knows, by name. A new one is one file and one line here."""

from __future__ import annotations

from app.engines.base import Engine
from app.engines.command import CommandEngine
from app.engines.llama_cpp import LlamaCpp
from app.engines.mock import MockEngine
from app.engines.openai_compatible import OpenAICompatible
from app.engines.qdrant import Qdrant
from app.engines.qdrant_edge import QdrantEdge
from app.engines.sglang import Sglang
from app.engines.vllm import Vllm
from app.errors import InvalidConfig

ENGINES: dict[str, Engine] = {
    "llama-cpp": LlamaCpp(),
    "vllm": Vllm(),
    "sglang": Sglang(),
    "openai-compatible": OpenAICompatible(),
    "qdrant": Qdrant(),
    "qdrant-edge": QdrantEdge(),
    "mock": MockEngine(),
    "command": CommandEngine(),
}
#: Those whose replicas serve no model.
STORES: tuple[str, ...] = tuple(name for name, one in ENGINES.items() if not one.serves_models)


def engine(name: str) -> Engine:
    """The engine of that name. Raises InvalidConfig, which lists the known ones."""
    found = ENGINES.get(name)
    if found is None:
        raise InvalidConfig(f"No engine {name!r}. Known engines: {', '.join(ENGINES)}.", errors={"engine": ["unknown"]})
    return found
