"""Families with a recurrence of their own: LFM2, LFM3, xLSTM, RWKV, RecurrentGemma, MiniMax."""

import math
from collections.abc import Iterable

from milepost.footprint import blocks
from milepost.footprint.blocks import INT64_BYTES, Block
from milepost.footprint.config_reader import ConfigReader
from milepost.footprint.families.config_blocks import FULL, LINEAR, SLIDING, mixture, mlp, softmax

__all__ = ["lfm2", "lfm2_moe", "lfm3", "minimax", "recurrent_gemma", "rwkv", "xlstm"]


def lfm2(config: ConfigReader, size: int) -> Iterable[Block]:
    """Short convolutions and attention."""
    inner = config.integer("block_ff_dim", "intermediate_size")
    if config.optional("block_auto_adjust_ff_dim") is not False:
        inner = int(config.number("block_ffn_dim_multiplier", default=1.0) * int(2 * inner / 3))
        inner = _round_up(inner, config.integer("block_multiple_of", default=256, least=1))
    for kind in _lfm2_kinds(config):
        yield _lfm2_mixer(config, size, kind) + blocks.dense_mlp(config.integer("hidden_size"), inner)


def lfm2_moe(config: ConfigReader, size: int) -> Iterable[Block]:
    """Short convolutions and attention; experts after the first dense layers."""
    num_dense = config.integer("num_dense_layers", default=2)
    for index, kind in enumerate(_lfm2_kinds(config)):
        yield _lfm2_mixer(config, size, kind)
        yield mlp(config) if index < num_dense else mixture(config, "moe_intermediate_size")


def lfm3(config: ConfigReader, size: int) -> Iterable[Block]:
    """Short convolutions, windows and full attention, whose heads are gated one by one."""
    hidden, heads = config.integer("hidden_size"), config.integer("num_attention_heads", least=1)
    gate = Block(weights=hidden * heads if config.optional("use_attention_gate") is not False else 0)
    default = [
        FULL if index % 4 == 2 else SLIDING if index and index % 4 == 0 else "conv"
        for index in range(config.integer("num_hidden_layers"))
    ]
    for kind in config.layer_types("conv", SLIDING, FULL, default=default):
        if kind == "conv":
            kernel = config.integer("conv_L_cache", default=7)
            yield blocks.short_convolution(hidden, kernel=kernel, element_bytes=size)
        else:
            window = config.integer("sliding_window", default=256) if kind == SLIDING else None
            yield softmax(config, size, head_dim=128, window=window) + gate
        yield mlp(config)


def xlstm(config: ConfigReader, size: int) -> Iterable[Block]:
    """Matrix memories and MLPs."""
    hidden, heads = config.integer("hidden_size", "embedding_dim"), config.integer("num_heads", least=1)
    keys = hidden * config.number("qk_dim_factor", default=0.5)
    values = hidden * config.number("v_dim_factor", default=1.0)
    # The layers round their sizes down to whole numbers, the cache rounds them up to multiples of 64.
    kept_key_dim, kept_value_dim = _round_up(keys, 64) // heads, _round_up(values, 64) // heads
    inner = _round_up(hidden * config.number("ffn_proj_factor", default=2.667), 64)
    for _ in range(config.integer("num_hidden_layers", "num_blocks")):
        yield blocks.mlstm(
            hidden,
            heads=heads,
            key_dim=int(keys) // heads,
            value_dim=int(values) // heads,
            chunk=config.integer("chunk_size", default=64),
            state_values=heads * (kept_key_dim * kept_value_dim + kept_key_dim + 1),
            element_bytes=size,
        )
        yield blocks.dense_mlp(hidden, inner)
    # The cache counts its tokens in a tensor.
    yield Block(checkpoint_bytes=INT64_BYTES)


def rwkv(config: ConfigReader, size: int) -> Iterable[Block]:
    """RWKV-4: time mixing and channel mixing."""
    hidden = config.integer("hidden_size")
    for _ in range(config.integer("num_hidden_layers")):
        yield blocks.rwkv(
            hidden,
            attention_hidden=config.integer("attention_hidden_size", default=hidden),
            inner=config.integer("intermediate_size", default=4 * hidden),
            element_bytes=size,
        )


def recurrent_gemma(config: ConfigReader, size: int) -> Iterable[Block]:
    """Griffin: gated linear recurrences and windowed attention."""
    hidden = config.integer("hidden_size")
    pattern = config.optional("block_types") or ("recurrent", "recurrent", "attention")
    for index in range(config.integer("num_hidden_layers")):
        if pattern[index % len(pattern)] == "attention":
            yield softmax(config, size, window=config.integer("attention_window_size", default=2048))
        else:
            yield blocks.rglru(
                hidden,
                width=config.integer("lru_width", default=hidden),
                heads=config.integer("num_attention_heads", least=1),
                kernel=config.integer("conv1d_width", default=4),
                element_bytes=size,
            )
        # The configuration counts gate and up together.
        yield blocks.dense_mlp(hidden, config.integer("intermediate_size") // 2)


def minimax(config: ConfigReader, size: int) -> Iterable[Block]:
    """Lightning attention and full attention, each with a mixture of experts."""
    hidden, heads = config.integer("hidden_size"), config.integer("num_attention_heads", least=1)
    default = [LINEAR if index % 2 else FULL for index in range(config.integer("num_hidden_layers"))]
    for kind in config.layer_types(LINEAR, FULL, default=default):
        if kind == LINEAR:
            yield blocks.lightning_attention(
                hidden,
                heads=heads,
                head_dim=config.integer("head_dim", default=hidden // heads),
                chunk=config.integer("block_size", default=256),
            )
        else:
            yield softmax(config, size)
        yield mixture(config, "intermediate_size")


def _lfm2_kinds(config: ConfigReader) -> list[str]:
    num_layers = config.integer("num_hidden_layers")
    attends = config.optional("full_attn_idxs")
    default = [FULL if attends is None or index in attends else "conv" for index in range(num_layers)]
    return config.layer_types("conv", FULL, default=default)


def _lfm2_mixer(config: ConfigReader, size: int, kind: str) -> Block:
    if kind == FULL:
        return softmax(config, size)
    return blocks.short_convolution(
        config.integer("hidden_size"), kernel=config.integer("conv_L_cache", default=3), element_bytes=size
    )


def _round_up(value: float, multiple: int) -> int:
    return math.ceil(value / multiple) * multiple
