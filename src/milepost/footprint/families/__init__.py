"""Which blocks each family is built of: one small function a family, dispatched by ``model_type``.

Bytes are checked against the tensors of a running model of every family, weights against its parameters.
A family that is not in the table is refused: measure it instead.
"""

from collections.abc import Callable, Iterable

from milepost.errors import UnsupportedModelError
from milepost.footprint.blocks import Block
from milepost.footprint.config_reader import ConfigReader
from milepost.footprint.families import attention, delta_rule, mamba, recurrent

__all__ = ["footprint_blocks", "footprint_parts", "known_model_types"]

_FAMILIES: dict[str, Callable[[ConfigReader, int], Iterable[Block]]] = {
    "bailing_hybrid": delta_rule.bailing_hybrid,
    "bamba": mamba.bamba,
    "falcon_h1": mamba.falcon_h1,
    "falcon_mamba": mamba.mamba1,
    "gemma3": attention.gemma3,
    "gemma3_text": attention.gemma3,
    "gpt_oss": attention.gpt_oss,
    "granitemoehybrid": mamba.granite_hybrid,
    "jamba": mamba.jamba,
    "kimi_linear": delta_rule.kimi_linear,
    "lara_mini": delta_rule.lara_mini,
    "lfm2": recurrent.lfm2,
    "lfm2_moe": recurrent.lfm2_moe,
    "lfm3": recurrent.lfm3,
    "llama": attention.transformer,
    "mamba": mamba.mamba1,
    "mamba2": mamba.mamba2,
    "minimax": recurrent.minimax,
    "mistral": attention.transformer,
    "nemotron_h": mamba.nemotron_h,
    "olmo_hybrid": delta_rule.olmo_hybrid,
    "qwen2": attention.transformer,
    "qwen3": attention.transformer,
    "qwen3_5": delta_rule.qwen_hybrid,
    "qwen3_5_moe": delta_rule.qwen_hybrid,
    "qwen3_5_moe_text": delta_rule.qwen_hybrid,
    "qwen3_5_text": delta_rule.qwen_hybrid,
    "qwen3_moe": attention.transformer,
    "qwen3_next": delta_rule.qwen_hybrid,
    "recurrent_gemma": recurrent.recurrent_gemma,
    "rwkv": recurrent.rwkv,
    "xlstm": recurrent.xlstm,
    "zamba": mamba.zamba,
    "zamba2": mamba.zamba2,
}


def known_model_types() -> tuple[str, ...]:
    """Return the model types with a formula, sorted."""
    return tuple(sorted(_FAMILIES))


def footprint_parts(config: object, *, dtype: str | None = None) -> Block:
    """Return the sum of the blocks of the model that ``config`` describes. O(layers)."""
    return sum(footprint_blocks(config, dtype=dtype), start=Block())


def footprint_blocks(config: object, *, dtype: str | None = None) -> tuple[Block, ...]:
    """Return the blocks of the model that ``config`` describes, in its order. O(layers)."""
    reader = ConfigReader(config)
    family = _FAMILIES.get(reader.model_type)
    if family is None:
        raise UnsupportedModelError(
            f"model_type={reader.model_type!r} has no footprint formula; known are "
            f"{', '.join(known_model_types())}. Count the tensors of the running model after two lengths and "
            "use Footprint.from_measurements"
        )
    return tuple(family(reader, reader.element_bytes(dtype)))
