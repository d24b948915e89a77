"""Whether vLLM serves a model, judged by the architecture in the model's config. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.engines.vllm_architectures import DROPPED, MULTIMODAL, POOLING, TEXT_GENERATION, VLLM_VERSION

#: What a service serves when nobody says which model.
DEFAULT_MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
#: What a model does, and the architectures that do it.
TASKS = {"text-generation": TEXT_GENERATION, "multimodal": MULTIMODAL, "pooling": POOLING}
#: Models to begin with: what is said of them, their name on the hub, their architecture.
EXAMPLES = (
    ("GPT-2, 124M parameters, no chat template: the smallest try", "gpt2", "GPT2LMHeadModel"),
    ("Qwen 2.5, 0.5B parameters: the default", DEFAULT_MODEL, "Qwen2ForCausalLM"),
    ("Qwen 2.5, 7B parameters", "Qwen/Qwen2.5-7B-Instruct", "Qwen2ForCausalLM"),
    ("SmolLM 2, 135M parameters", "HuggingFaceTB/SmolLM2-135M-Instruct", "LlamaForCausalLM"),
    ("Llama 3.1, 8B parameters; gated", "meta-llama/Llama-3.1-8B-Instruct", "LlamaForCausalLM"),
    ("Mistral 0.3, 7B parameters", "mistralai/Mistral-7B-Instruct-v0.3", "MistralForCausalLM"),
    ("Qwen 2.5 VL, 7B parameters: images too", "Qwen/Qwen2.5-VL-7B-Instruct", "Qwen2_5_VLForConditionalGeneration"),
    ("BGE small, 33M parameters: embeddings", "BAAI/bge-small-en-v1.5", "BertModel"),
)


@dataclass(frozen=True)
class Verdict:
    """``compatible`` is None where nobody can say; ``task`` is one of TASKS, None where it is not compatible."""

    architecture: str | None
    compatible: bool | None
    task: str | None
    why: str


def judge(architectures: Sequence[str], *, hidden: bool = False) -> Verdict:
    """The verdict on a model whose config names ``architectures``; ``hidden``: its config is not shown to us."""
    if not architectures:
        if hidden:
            return Verdict(None, None, None, "The hub does not show its config to us; ask for access to it there.")
        return Verdict(None, False, None, "Its config names no architecture, by which vLLM finds how to serve it.")
    for architecture in architectures:
        for task, known in TASKS.items():
            if architecture in known:
                return Verdict(architecture, True, task, f"vLLM {VLLM_VERSION} serves {architecture}.")
    first = architectures[0]
    if first in DROPPED:
        return Verdict(first, False, None, f"vLLM served {first} up to version {DROPPED[first]} only.")
    return Verdict(
        first, False, None, f"vLLM {VLLM_VERSION} does not name {first}; it may still run it through transformers."
    )
