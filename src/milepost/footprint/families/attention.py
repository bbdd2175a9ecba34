"""Transformers without a recurrence: full attention, or a mix of full attention and sliding windows."""

from collections.abc import Iterable

from milepost.footprint.blocks import Block
from milepost.footprint.config_reader import ConfigReader
from milepost.footprint.families.config_blocks import FULL, SLIDING, mixture, mlp, softmax

__all__ = ["gemma3", "gpt_oss", "transformer"]


def transformer(config: ConfigReader, size: int) -> Iterable[Block]:
    """Llama, Mistral, Qwen2, Qwen3 and Qwen3-MoE."""
    dense = set(config.optional("mlp_only_layers") or ())
    step = config.integer("decoder_sparse_step", default=1, least=1)
    head_dim = {"qwen3": 128}.get(config.model_type)
    for index, kind in enumerate(config.layer_types(FULL, SLIDING, default=_default_kinds(config))):
        window = config.integer("sliding_window") if kind == SLIDING else None
        yield softmax(config, size, head_dim=head_dim, window=window)
        if config.optional("num_experts") and index not in dense and (index + 1) % step == 0:
            yield mixture(config, "moe_intermediate_size")
        else:
            yield mlp(config)


def gpt_oss(config: ConfigReader, size: int) -> Iterable[Block]:
    """Windows and full attention in turn, each with a mixture of experts."""
    alternating = [FULL if index % 2 else SLIDING for index in range(config.integer("num_hidden_layers"))]
    for kind in config.layer_types(FULL, SLIDING, default=alternating):
        window = config.integer("sliding_window", default=128) if kind == SLIDING else None
        yield softmax(config, size, head_dim=64, window=window) + mixture(config, "intermediate_size")


def gemma3(config: ConfigReader, size: int) -> Iterable[Block]:
    """Full attention at every sixth layer, windows between."""
    period = config.integer("sliding_window_pattern", default=6, least=1)
    default = [
        SLIDING if (index + 1) % period else FULL for index in range(config.integer("num_hidden_layers"))
    ]
    for kind in config.layer_types(FULL, SLIDING, default=default):
        window = config.integer("sliding_window", default=4096) if kind == SLIDING else None
        yield softmax(config, size, heads=8, kv_heads=4, head_dim=256, window=window) + mlp(config)


def _default_kinds(config: ConfigReader) -> list[str]:
    num_layers = config.integer("num_hidden_layers")
    if config.model_type == "mistral":
        return [FULL if config.optional("sliding_window") is None else SLIDING] * num_layers
    if config.optional("use_sliding_window") and config.optional("sliding_window") is not None:
        first = config.integer("max_window_layers", default=28)
        return [SLIDING if index >= first else FULL for index in range(num_layers)]
    return [FULL] * num_layers
