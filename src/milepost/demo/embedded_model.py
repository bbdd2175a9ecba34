"""A hybrid model that needs no download: the Qwen3.5 architecture, byte-level tokens, weights from a seed.

It has learned nothing, so its answers are noise; but it is the real architecture, run by the real library,
and it is as sensitive to a wrong state as a trained model: what is exact here is exact there. Its shape
keeps the ratio that matters: one checkpoint weighs as much as about 900 tokens of KV (800 to 6,700 in the
wild).
"""

from typing import Any, cast

import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Qwen3_5ForCausalLM, Qwen3_5TextConfig

from milepost.engines.text import Tokenizer

__all__ = ["build_embedded_model", "build_embedded_tokenizer", "resolve_model"]

_EMBEDDED = "embedded"

_SEED = 20_260_505
# Wide enough that the answer hangs on the whole prompt; the library's default leaves the logits nearly flat.
_WEIGHT_STD = 0.08
_CONTEXT_TOKENS = 32_768
_NUM_BYTES = 256
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def build_embedded_tokenizer() -> Tokenizer:
    """Return the tokenizer: a token a byte of UTF-8, and the plainest chat template there is."""
    # Byte-level tokenizers write bytes as letters: those that print as themselves, others in order as more.
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    ids = {letter: ord(letter) for letter in letters if ord(letter) < _NUM_BYTES}
    others = sorted(set(range(_NUM_BYTES)) - set(ids.values()))
    ids |= dict(zip((letter for letter in letters if letter not in ids), others, strict=True))
    tokenizer = tokenizers.Tokenizer(models.BPE(ids, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    made: Tokenizer = cast(Any, PreTrainedTokenizerFast)(
        tokenizer_object=tokenizer,
        chat_template=_CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        name_or_path=_EMBEDDED,
    )
    return made


def build_embedded_model() -> PreTrainedModel:
    """Return the model, the same on every machine, in well under a second. Global random state is kept."""
    config = Qwen3_5TextConfig(
        vocab_size=_NUM_BYTES,
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


def resolve_model(name: str) -> tuple[str | PreTrainedModel, Tokenizer | None]:
    """Return the model that ``name`` asks for: ``embedded`` is built here, anything else is opened later."""
    if name == _EMBEDDED:
        return build_embedded_model(), build_embedded_tokenizer()
    return name, None
