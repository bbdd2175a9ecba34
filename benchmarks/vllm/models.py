"""Tiny random models that vLLM runs on a CPU, one for each way in which a family keeps its state.

    python -m benchmarks.vllm.models FOLDER [NAME...]

A model is a folder: config.json, safetensors, and a byte-level tokenizer with a chat template, so that the
OpenAI server answers from it. It has learned nothing. What makes it evidence all the same:

* *It is the real architecture.* Recurrent layers and attention mix as in a released model. Where its state
  outweighs many tokens of KV it does so here, and vLLM widens the cache block and groups the layers likewise.
* *It can fail.* Decays remember for a hundred tokens and more, a token counts little beside what the layers
  add, and the logits are peaked: when a restored state is lost, nearly every greedy token changes. (Less so
  with ``lfm2-moe``: a state is a layer's last two tokens, and twenty tokens on its loss may not show.)
* *It replays.* The weights depend on the name alone, and the global random state is left as it was.
"""

import argparse
import json
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from benchmarks.vllm.servers.workarounds import rotate_whole_queries, switch_off_internal_checkpoints

__all__ = ["MODELS", "ModelUnderTest", "build"]

VOCABULARY_SIZE = 512
CONTEXT_TOKENS = 32_768


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUnderTest:
    """What a model is made of, and what vLLM must be told to run it on a CPU."""

    model_type: str
    options: Mapping[str, Any]
    dtype: str = "float32"
    """Where the kernels allow it, fp32: greedy tokens then stay clear of rounding."""
    prepare_vllm: Callable[[], None] = lambda: None
    """Run in the process that holds the layers, before the engine starts."""
    needs_torchvision: bool = False
    """Whether vLLM's module for the family imports torchvision, though the model is text."""
    embedding_std: float = 0.4
    """Much less, and answers repeat one token; much more, and they hang on the last token alone."""
    block_size: int = 32
    """The block to ask for; vLLM raises it until a block of KV outweighs a state."""

    def engine_arguments(self, folder: Path) -> dict[str, Any]:
        """Return the arguments of ``vllm.LLM`` for the model in ``folder``, prefix caching on."""
        return {
            "model": str(folder),
            "dtype": self.dtype,
            "block_size": self.block_size,
            "max_model_len": CONTEXT_TOKENS,
            "enable_prefix_caching": True,
            "enforce_eager": True,
        }


_COMMON = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 64,
    "max_position_embeddings": CONTEXT_TOKENS,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
_FOUR_LAYERS = {
    "num_hidden_layers": 4,
    "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
}
_ATTENTION = {"num_attention_heads": 2, "num_key_value_heads": 1}
# vLLM's CPU kernel for the gated delta net takes no other head size, and no other dtype than bf16.
_GATED_DELTA_NET = {
    "linear_num_key_heads": 1,
    "linear_num_value_heads": 1,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
}
_MAMBA2 = {
    "mamba_n_heads": 4,
    "mamba_d_head": 32,
    "mamba_d_state": 64,
    "mamba_n_groups": 1,
    "mamba_expand": 2,
    "mamba_chunk_size": 64,
}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 64}

MODELS: dict[str, ModelUnderTest] = {
    "qwen3-next": ModelUnderTest(
        model_type="qwen3_next",
        options=_FOUR_LAYERS
        | _ATTENTION
        | _GATED_DELTA_NET
        | _EXPERTS
        | {"num_experts": 4, "head_dim": 64, "shared_expert_intermediate_size": 64},
        dtype="bfloat16",
    ),
    "qwen3.5": ModelUnderTest(
        model_type="qwen3_5_text",
        options=_FOUR_LAYERS | _ATTENTION | _GATED_DELTA_NET | {"head_dim": 64, "intermediate_size": 128},
        dtype="bfloat16",
        needs_torchvision=True,
    ),
    "lfm2-moe": ModelUnderTest(
        model_type="lfm2_moe",
        options=_ATTENTION
        | _EXPERTS
        | {
            "num_hidden_layers": 4,
            "layer_types": ["conv", "conv", "full_attention", "conv"],
            "intermediate_size": 128,
            "num_dense_layers": 1,
            "num_experts": 4,
        },
        embedding_std=0.2,
        prepare_vllm=rotate_whole_queries,
    ),
    "mamba2": ModelUnderTest(
        model_type="mamba2",
        options={
            "num_hidden_layers": 4,
            "num_heads": 4,
            "head_dim": 32,
            "state_size": 64,
            "n_groups": 1,
            "expand": 2,
            "chunk_size": 64,
        },
        prepare_vllm=switch_off_internal_checkpoints,
        block_size=64,
    ),
    "falcon-h1": ModelUnderTest(
        model_type="falcon_h1",
        options=_ATTENTION
        | _MAMBA2
        | {"num_hidden_layers": 4, "head_dim": 32, "mamba_d_ssm": 128, "intermediate_size": 128},
        prepare_vllm=switch_off_internal_checkpoints,
    ),
    "nemotron-h": ModelUnderTest(
        model_type="nemotron_h",
        options=_ATTENTION
        | {
            # No experts: vLLM has no CPU kernel for experts with this family's activation, which has no gate.
            "layers_block_type": [*(("linear_attention", "mlp") * 2), "full_attention", "linear_attention"],
            "head_dim": 32,
            "intermediate_size": 128,
            "ssm_state_size": 64,
            "mamba_num_heads": 4,
            "mamba_head_dim": 32,
            "n_groups": 1,
            "chunk_size": 64,
        },
        prepare_vllm=switch_off_internal_checkpoints,
    ),
    "granite-moe-hybrid": ModelUnderTest(
        model_type="granitemoehybrid",
        options=_FOUR_LAYERS
        | _ATTENTION
        | _MAMBA2
        | {
            "intermediate_size": 64,
            "shared_intermediate_size": 64,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "attention_multiplier": 0.2,
        },
        prepare_vllm=switch_off_internal_checkpoints,
    ),
}
"""The models by name. The two Qwens keep gated-delta-net states, LFM2 those of short convolutions, the rest
Mamba-2 states; ``mamba2`` has no attention, and ``falcon-h1`` has both in every layer."""


def build(name: str, folder: Path) -> Path:
    """Write the model ``name`` of ``MODELS`` into ``folder`` and return ``folder``; takes a second or two."""
    under_test = MODELS[name]
    config = AutoConfig.for_model(under_test.model_type, **_COMMON | dict(under_test.options))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(name.encode()))
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
        _draw_parameters(model, embedding_std=under_test.embedding_std)
    folder.mkdir(parents=True, exist_ok=True)
    model.to(getattr(torch, under_test.dtype)).save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return folder


def _draw_parameters(model: PreTrainedModel, *, embedding_std: float) -> None:
    """Draw every parameter anew: by name where its role fixes a scale, else by fan-in."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            last = name.rsplit(".", 1)[-1]
            if last in _DRAWS_BY_NAME:
                parameter.copy_(_DRAWS_BY_NAME[last](parameter))
            elif "embed_tokens" in name or "embeddings" in name:
                parameter.normal_(std=embedding_std)
            elif "conv" in name and last == "weight" and parameter.shape[-1] < _LONGEST_CONVOLUTION:
                parameter.normal_(std=0.5)
            elif "lm_head" in name:
                parameter.normal_(std=_LOGIT_STD / math.sqrt(parameter.shape[-1]))
                parameter[: len(_SPECIAL_TOKENS)] = 0.0  # so that an answer never ends by chance
            elif parameter.ndim >= 2:
                parameter.normal_(std=1.0 / math.sqrt(parameter.shape[-1]))
            else:
                # Norms and biases keep their centre: some norms scale by the weight, some by 1 + weight.
                parameter.add_(torch.randn_like(parameter), alpha=0.1)


def _normal(mean: float, std: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda parameter: mean + std * torch.randn_like(parameter)


_LONGEST_CONVOLUTION = 8
_LOGIT_STD = 4.0
# Decays that remember for a hundred tokens and more, and gates that are neither shut nor saturated.
_DRAWS_BY_NAME: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "A_log": _normal(-3.0, 0.5),
    "dt_bias": _normal(-2.0, 0.5),
    "D": _normal(0.0, 0.5),
}

_SPECIAL_TOKENS = ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# Ġ is a space in the alphabet of byte-level tokenizers.
_FREQUENT_LETTERS = "Ġetaoinshrdlcumw"


def _tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of 512 ids: four special tokens, 256 bytes, 252 pairs of frequent letters."""
    pieces = [*_SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges = [(first, second) for first in _FREQUENT_LETTERS for second in _FREQUENT_LETTERS]
    merges = merges[: VOCABULARY_SIZE - len(pieces)]
    pieces += [first + second for first, second in merges]
    tokenizer = Tokenizer(BPE(vocab={piece: index for index, piece in enumerate(pieces)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in _SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token=_SPECIAL_TOKENS[0],
        pad_token=_SPECIAL_TOKENS[0],
        chat_template=_CHAT_TEMPLATE,
        model_max_length=CONTEXT_TOKENS,
        clean_up_tokenization_spaces=False,
    )


def main() -> None:
    """Write the named models, or all, below a folder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vllm.models")
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(MODELS)}; all by default")
    arguments = parser.parse_args()
    for name in arguments.names or MODELS:
        print(json.dumps(MODELS[name].engine_arguments(build(name, arguments.folder / name))))


if __name__ == "__main__":
    main()
