"""Families built on Mamba, first or second: alone, beside attention, or around one shared attention block."""

import math
from collections.abc import Iterable

from milepost.footprint import blocks
from milepost.footprint.blocks import Block
from milepost.footprint.config_reader import ConfigReader
from milepost.footprint.families.config_blocks import FULL, LINEAR, mixture, mlp, softmax

__all__ = [
    "bamba",
    "falcon_h1",
    "granite_hybrid",
    "jamba",
    "mamba1",
    "mamba2",
    "nemotron_h",
    "zamba",
    "zamba2",
]


def mamba2(config: ConfigReader, size: int) -> Iterable[Block]:
    """Mamba-2 alone."""
    for _ in range(config.integer("num_hidden_layers")):
        yield blocks.mamba2(
            config.integer("hidden_size"),
            heads=config.integer("num_heads"),
            head_dim=config.integer("head_dim"),
            state=config.integer("state_size"),
            groups=config.integer("n_groups"),
            kernel=config.integer("conv_kernel"),
            chunk=config.integer("chunk_size"),
            element_bytes=size,
        )


def _mamba2_mixer(config: ConfigReader, size: int) -> Block:
    """Mamba-2 as Bamba named its numbers, and the families after it."""
    hidden = config.integer("hidden_size")
    expanded = config.integer("mamba_expand", default=2) * hidden
    heads = config.integer("mamba_n_heads", least=1)
    head_dim = config.optional("mamba_d_head")
    inner = config.integer("mamba_d_ssm", default=expanded)
    return blocks.mamba2(
        hidden,
        heads=heads,
        head_dim=inner // heads if head_dim in (None, "auto") else config.integer("mamba_d_head"),
        state=config.integer("mamba_d_state"),
        groups=config.integer("mamba_n_groups", default=1),
        kernel=config.integer("mamba_d_conv", default=4),
        chunk=config.integer("mamba_chunk_size", default=256),
        element_bytes=size,
    )


def falcon_h1(config: ConfigReader, size: int) -> Iterable[Block]:
    """Attention and Mamba-2 side by side in every layer."""
    for _ in range(config.integer("num_hidden_layers")):
        yield _mamba2_mixer(config, size) + softmax(config, size) + mlp(config)


def bamba(config: ConfigReader, size: int) -> Iterable[Block]:
    """Mamba-2 with attention at the named layers."""
    attends = set(config.optional("attn_layer_indices") or ())
    for index in range(config.integer("num_hidden_layers")):
        yield softmax(config, size) if index in attends else _mamba2_mixer(config, size)
        yield mlp(config)


def granite_hybrid(config: ConfigReader, size: int) -> Iterable[Block]:
    """Mamba-2 or attention, then a shared MLP beside a mixture of experts."""
    default = [LINEAR] * config.integer("num_hidden_layers")
    for kind in config.layer_types(LINEAR, FULL, default=default):
        yield _mamba2_mixer(config, size) if kind == LINEAR else softmax(config, size)
        yield mlp(config, "shared_intermediate_size")
        if config.integer("num_local_experts", default=0):
            yield mixture(config, "intermediate_size")


def nemotron_h(config: ConfigReader, size: int) -> Iterable[Block]:
    """One block a layer: Mamba-2, attention, MLP or a mixture of experts."""
    hidden = config.integer("hidden_size")
    letters = {"M": LINEAR, "E": "moe", "*": FULL, "-": "mlp"}
    pattern = config.text("hybrid_override_pattern", default="")
    default = [letters.get(letter, letter) for letter in pattern]
    for kind in config.layer_types(*letters.values(), default=default):
        if kind == LINEAR:
            yield blocks.mamba2(
                hidden,
                heads=config.integer("mamba_num_heads"),
                head_dim=config.integer("mamba_head_dim"),
                state=config.integer("ssm_state_size"),
                groups=config.integer("n_groups", "mamba_n_groups"),
                kernel=config.integer("conv_kernel", "mamba_d_conv", default=4),
                chunk=config.integer("chunk_size", "mamba_chunk_size", default=128),
                element_bytes=size,
            )
        elif kind == FULL:
            yield softmax(config, size, head_dim=128)
        elif kind == "mlp":
            yield mlp(config, matrices=2)
        else:
            yield blocks.mixture(
                hidden,
                config.integer("moe_intermediate_size"),
                experts=config.integer("n_routed_experts"),
                chosen=config.integer("num_experts_per_tok"),
                matrices=2,
                expert_input=config.optional("moe_latent_size"),
            )
            yield mlp(config, "moe_shared_expert_intermediate_size", matrices=2)


def zamba2(config: ConfigReader, size: int) -> Iterable[Block]:
    """Mamba-2 everywhere, before some of it one shared attention block."""
    hidden = config.integer("hidden_size")
    inner = config.integer("intermediate_size", default=4 * hidden)
    rank = config.integer("adapter_rank", default=128)
    mamba_heads = config.integer("n_mamba_heads", default=8, least=1)
    # The shared block is one set of weights, yet every use of it computes and keeps KV of its own; only the
    # low-rank adapters differ from use to use.
    shared = _doubled_attention(config, size) + blocks.dense_mlp(hidden, inner)
    shared += Block(weights=rank * (hidden + 2 * inner))
    if config.optional("use_shared_attention_adapter"):
        shared += Block(weights=3 * rank * 4 * hidden)
    for kind in config.layer_types(LINEAR, "hybrid", default=[]):
        if kind == "hybrid":
            yield shared
        yield blocks.mamba2(
            hidden,
            heads=mamba_heads,
            head_dim=config.integer("mamba_expand", default=2) * hidden // mamba_heads,
            state=config.integer("mamba_d_state", default=64),
            groups=config.integer("mamba_ngroups", default=1),
            kernel=config.integer("mamba_d_conv", default=4),
            chunk=config.integer("chunk_size", default=256),
            element_bytes=size,
        )


def zamba(config: ConfigReader, size: int) -> Iterable[Block]:
    """Mamba-1 everywhere, before some of it one shared attention block."""
    period = config.integer("attn_layer_period", default=6, least=1)
    offset = config.integer("attn_layer_offset", default=4)
    default = [LINEAR, LINEAR, "hybrid"] + [
        "hybrid" if index % period == offset else LINEAR
        for index in range(config.integer("num_hidden_layers") - 3)
    ]
    for kind in config.layer_types(LINEAR, "hybrid", default=default):
        if kind == "hybrid":
            yield _doubled_attention(config, size) + mlp(config)
        yield _mamba1_mixer(config, size)


def jamba(config: ConfigReader, size: int) -> Iterable[Block]:
    """Mamba-1 with attention and experts at periods of their own."""
    attention_period, attention_offset = (
        config.integer("attn_layer_period", least=1),
        config.integer("attn_layer_offset"),
    )
    expert_period, expert_offset = (
        config.integer("expert_layer_period", least=1),
        config.integer("expert_layer_offset"),
    )
    for index in range(config.integer("num_hidden_layers")):
        attends = index % attention_period == attention_offset
        yield softmax(config, size) if attends else _mamba1_mixer(config, size)
        is_mixture = config.integer("num_experts") > 1 and index % expert_period == expert_offset
        yield mixture(config, "intermediate_size") if is_mixture else mlp(config)


def mamba1(config: ConfigReader, size: int) -> Iterable[Block]:
    """Mamba and Falcon-Mamba: Mamba-1 alone."""
    hidden = config.integer("hidden_size")
    for _ in range(config.integer("num_hidden_layers")):
        yield blocks.mamba1(
            hidden,
            inner=config.integer("intermediate_size", default=config.integer("expand", default=2) * hidden),
            state=config.integer("state_size"),
            time_step_rank=_time_step_rank(config, "time_step_rank"),
            kernel=config.integer("conv_kernel", default=4),
            element_bytes=size,
        )


def _mamba1_mixer(config: ConfigReader, size: int) -> Block:
    """Mamba-1 as Jamba and Zamba name its numbers."""
    hidden = config.integer("hidden_size")
    return blocks.mamba1(
        hidden,
        inner=config.integer("mamba_expand", default=2) * hidden,
        state=config.integer("mamba_d_state", default=16),
        time_step_rank=_time_step_rank(config, "mamba_dt_rank"),
        kernel=config.integer("mamba_d_conv", default=4),
        element_bytes=size,
    )


def _time_step_rank(config: ConfigReader, name: str) -> int:
    if config.optional(name) in (None, "auto"):
        return math.ceil(config.integer("hidden_size") / 16)
    return config.integer(name)


def _doubled_attention(config: ConfigReader, size: int) -> Block:
    """Zamba's attention reads the hidden state beside the embedding, and is projected back once a use."""
    hidden, heads = config.integer("hidden_size"), config.integer("num_attention_heads", least=1)
    attention = blocks.attention(
        hidden,
        heads=heads,
        kv_heads=config.integer("num_key_value_heads", default=heads),
        head_dim=config.integer("attention_head_dim", default=2 * hidden // heads),
        element_bytes=size,
        input_size=2 * hidden,
    )
    return attention + Block(weights=hidden * hidden)
