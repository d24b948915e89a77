"""A llama model of half a megabyte with random weights: loads in milliseconds, says nonsense."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gguf import GGUFWriter

_WIDTH, _LAYERS, _HEADS, _FEED_FORWARD, _CONTEXT = 64, 2, 4, 128, 2048
_WORDS = ("the", "a", "of", "to", "and", "in", "is", "engine", "ready", "track", "steam")
#: kinds of token as GGUF numbers them
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6


def write_tiny_gguf(path: Path | str, seed: int = 7) -> Path:
    """Write the model to ``path``, whole or not at all; the same seed gives the same bytes. Raises OSError."""
    # numpy and gguf take 0.2 s to import, and the API process lists models without them
    from gguf import GGUFWriter

    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        writer = GGUFWriter(str(partial), "llama")
        _describe(writer)
        _add_vocabulary(writer)
        _add_weights(writer, seed)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _describe(writer: GGUFWriter) -> None:
    writer.add_name("tiny random llama")
    writer.add_description("Random weights: answers are noise.")
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    writer.add_layer_norm_rms_eps(1e-5)


def _vocabulary() -> tuple[list[bytes], list[float], list[int]]:
    words = ["▁", *(f"▁{word}" for word in _WORDS)]
    tokens = [b"<unk>", b"<s>", b"</s>", *(f"<0x{value:02X}>".encode() for value in range(256))]
    scores = [0.0] * 3 + [-1000.0] * 256 + [-float(rank) for rank in range(len(words))]
    kinds = [_UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * 256, *[_NORMAL] * len(words)]
    return tokens + [word.encode() for word in words], scores, kinds


def _add_vocabulary(writer: GGUFWriter) -> None:
    tokens, scores, kinds = _vocabulary()
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def _add_weights(writer: GGUFWriter, seed: int) -> None:
    import numpy

    random = numpy.random.default_rng(seed)

    def noise(name: str, *shape: int) -> None:
        writer.add_tensor(name, (random.standard_normal(shape) * 0.1).astype(numpy.float32))

    def ones(name: str) -> None:
        writer.add_tensor(name, numpy.ones(_WIDTH, numpy.float32))

    vocabulary = len(_vocabulary()[0])
    noise("token_embd.weight", vocabulary, _WIDTH)
    ones("output_norm.weight")
    noise("output.weight", vocabulary, _WIDTH)
    for layer in range(_LAYERS):
        block = f"blk.{layer}"
        ones(f"{block}.attn_norm.weight")
        ones(f"{block}.ffn_norm.weight")
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            noise(f"{block}.{part}.weight", _WIDTH, _WIDTH)
        noise(f"{block}.ffn_gate.weight", _FEED_FORWARD, _WIDTH)
        noise(f"{block}.ffn_up.weight", _FEED_FORWARD, _WIDTH)
        noise(f"{block}.ffn_down.weight", _WIDTH, _FEED_FORWARD)
