"""A hybrid model that needs no download: the Qwen3.5 architecture, byte-level tokens, weights from a seed.

It has learned nothing, so its answers are noise; but it is the real architecture, run by the real library,
and it is as sensitive to a wrong state as a trained model: what is exact here is exact there. Its shape
keeps the ratio that matters: one checkpoint weighs as much as about 900 tokens of KV (800 to 6,700 in the
wild).
"""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, Qwen3_5ForCausalLM, Qwen3_5TextConfig

from milepost.engines.transformers.text import checked_text

__all__ = ["ByteTokenizer", "build_embedded_model", "resolve_model"]

_EMBEDDED = "embedded"

_SEED = 20_260_505
# Wide enough that the answer hangs on the whole prompt; the library's default leaves the logits nearly flat.
_WEIGHT_STD = 0.08
_CONTEXT_TOKENS = 32_768


class ByteTokenizer:
    """Text as UTF-8 bytes: 256 token ids and nothing to download."""

    vocabulary_size = 256

    def encode(self, text: str) -> list[int]:
        """Return the bytes of ``text``; raises ``InvalidRequestError`` where it holds half a character."""
        return list(checked_text(text).encode())

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of the bytes; what is no UTF-8 becomes a replacement character."""
        return bytes(token_ids).decode(errors="replace")


def build_embedded_model() -> PreTrainedModel:
    """Return the model, the same on every machine, in well under a second. Global random state is kept."""
    config = Qwen3_5TextConfig(
        vocab_size=ByteTokenizer.vocabulary_size,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=32,
        linear_num_key_heads=4,
        linear_num_value_heads=4,
        linear_key_head_dim=64,
        linear_value_head_dim=64,
        max_position_embeddings=_CONTEXT_TOKENS,
        initializer_range=_WEIGHT_STD,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        return Qwen3_5ForCausalLM(config).eval()


def resolve_model(name: str) -> tuple[str | PreTrainedModel, ByteTokenizer | None]:
    """Return the model that ``name`` asks for: ``embedded`` is built here, anything else is opened later."""
    if name == _EMBEDDED:
        return build_embedded_model(), ByteTokenizer()
    return name, None
