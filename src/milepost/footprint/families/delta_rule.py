"""Families built on the gated delta rule: Qwen3-Next, Qwen3.5, OLMo-Hybrid, LARA, Kimi-Linear, Ling."""

from collections.abc import Iterable

from milepost.footprint import blocks
from milepost.footprint.blocks import Block
from milepost.footprint.config_reader import ConfigReader
from milepost.footprint.families.config_blocks import FULL, LINEAR, SLIDING, mixture, mlp, softmax

__all__ = ["bailing_hybrid", "kimi_linear", "lara_mini", "olmo_hybrid", "qwen_hybrid"]

_LARA_PATTERN = (LINEAR, SLIDING, LINEAR, FULL, SLIDING)


def _every(config: ConfigReader, interval: int) -> list[str]:
    """Linear layers with full attention at every ``interval``-th."""
    return [LINEAR if (i + 1) % interval else FULL for i in range(config.integer("num_hidden_layers"))]


def qwen_hybrid(config: ConfigReader, size: int) -> Iterable[Block]:
    """Qwen3-Next and Qwen3.5, dense or with experts: gated attention at every fourth layer."""
    hidden = config.integer("hidden_size")
    dense = set(config.optional("mlp_only_layers") or ())
    step = config.integer("decoder_sparse_step", default=1, least=1)
    interval = config.integer("full_attention_interval", default=4, least=1)
    kinds = config.layer_types(LINEAR, FULL, default=_every(config, interval))
    for index, kind in enumerate(kinds):
        yield (
            _gated_delta_net(config, size)
            if kind == LINEAR
            else softmax(config, size, head_dim=256, gated=True)
        )
        if config.optional("num_experts") and index not in dense and (index + 1) % step == 0:
            shared = config.integer("shared_expert_intermediate_size")
            yield mixture(config, "moe_intermediate_size")
            yield blocks.dense_mlp(hidden, shared) + Block(weights=hidden)
        else:
            yield mlp(config)


def _gated_delta_net(config: ConfigReader, size: int) -> Block:
    hidden = config.integer("hidden_size")
    value_heads = config.integer("linear_num_value_heads")
    value_dim = config.integer("linear_value_head_dim")
    return blocks.gated_delta_rule(
        hidden,
        key_heads=config.integer("linear_num_key_heads"),
        value_heads=value_heads,
        key_dim=config.integer("linear_key_head_dim"),
        value_dim=value_dim,
        kernel=config.integer("linear_conv_kernel_dim", default=4),
        gate_weights=hidden * value_heads * (2 + value_dim),
        element_bytes=size,
    )


def olmo_hybrid(config: ConfigReader, size: int) -> Iterable[Block]:
    """Gated DeltaNet with full attention at every fourth layer."""
    for kind in config.layer_types(LINEAR, FULL, default=_every(config, 4)):
        yield _gated_delta_net(config, size) if kind == LINEAR else softmax(config, size)
        yield mlp(config)


def lara_mini(config: ConfigReader, size: int) -> Iterable[Block]:
    """Gated DeltaNet, windows and full attention in a pattern of five, each with a mixture of experts."""
    layers = range(config.integer("num_hidden_layers"))
    default = [_LARA_PATTERN[index % len(_LARA_PATTERN)] for index in layers]
    for kind in config.layer_types(LINEAR, SLIDING, FULL, default=default):
        window = config.integer("sliding_window", default=512) if kind == SLIDING else None
        yield _gated_delta_net(config, size) if kind == LINEAR else softmax(config, size, window=window)
        yield mixture(config, "moe_intermediate_size") + mlp(config, "shared_expert_intermediate_size")


def bailing_hybrid(config: ConfigReader, size: int) -> Iterable[Block]:
    """Ling: Kimi Delta Attention with gated latent attention at the last layer of each group."""
    hidden, heads = config.integer("hidden_size"), config.integer("num_attention_heads", least=1)
    # Published configurations call the linear head size head_dim, which transformers reuses.
    head_dim = config.integer("linear_head_dim", "head_dim", default=128)
    width = heads * head_dim
    dense_first = config.integer("first_k_dense_replace", default=2)
    shared = config.integer("n_shared_experts", "num_shared_experts", default=1)
    default = _every(config, config.integer("layer_group_size", default=6, least=1))
    for index, kind in enumerate(config.layer_types(LINEAR, FULL, default=default)):
        if kind == LINEAR:
            yield blocks.gated_delta_rule(
                hidden,
                key_heads=heads,
                value_heads=heads,
                key_dim=head_dim,
                value_dim=head_dim,
                kernel=config.integer("short_conv_kernel_size", default=4),
                gate_weights=hidden * (2 * width + heads),
                element_bytes=size,
            )
        else:
            yield _latent_attention(config, size) + Block(weights=hidden * heads)
        if index < dense_first:
            yield mlp(config)
        else:
            inner = config.integer("moe_intermediate_size")
            yield mixture(config, "moe_intermediate_size") + blocks.dense_mlp(hidden, inner * shared)


def _latent_attention(config: ConfigReader, size: int) -> Block:
    return blocks.latent_attention(
        config.integer("hidden_size"),
        heads=config.integer("num_attention_heads"),
        latent=config.integer("kv_lora_rank"),
        query_latent=config.optional("q_lora_rank"),
        nope_dim=config.integer("qk_nope_head_dim"),
        rope_dim=config.integer("qk_rope_head_dim"),
        value_dim=config.integer("v_head_dim"),
        element_bytes=size,
    )


def kimi_linear(config: ConfigReader, size: int) -> Iterable[Block]:
    """Kimi Delta Attention with latent attention at some layers."""
    hidden = config.integer("hidden_size")
    # Published configurations keep these numbers in a table of their own, and count layers from 1.
    table = config.optional("linear_attn_config") or {}
    heads = table.get("num_heads") or config.integer("linear_num_heads", default=32)
    head_dim = table.get("head_dim") or config.integer("linear_head_dim", default=128)
    kernel = table.get("short_conv_kernel_size") or config.integer("linear_conv_kernel_dim", default=4)
    full = set(table.get("full_attn_layers") or ())
    kinds = [
        FULL if (index + 1 in full if full else index and index % 4 == 0) else LINEAR
        for index in range(config.integer("num_hidden_layers"))
    ]
    dense_first = config.integer("first_k_dense_replace", default=1)
    mlp_kinds = config.optional("mlp_layer_types") or [
        "dense" if index < dense_first else "sparse" for index in range(len(kinds))
    ]
    shared = config.integer("n_shared_experts", "num_shared_experts", default=1)
    for kind, mlp_kind in zip(config.layer_types(LINEAR, FULL, default=kinds), mlp_kinds, strict=True):
        if kind == LINEAR:
            yield blocks.gated_delta_rule(
                hidden,
                key_heads=heads,
                value_heads=heads,
                key_dim=head_dim,
                value_dim=head_dim,
                kernel=kernel,
                gate_weights=2 * head_dim * (hidden + heads * head_dim) + hidden * heads,
                element_bytes=size,
            )
        else:
            yield _latent_attention(config, size)
        if mlp_kind == "dense":
            yield mlp(config)
        else:
            inner = config.integer("moe_intermediate_size")
            yield mixture(config, "moe_intermediate_size") + blocks.dense_mlp(hidden, inner * shared)
