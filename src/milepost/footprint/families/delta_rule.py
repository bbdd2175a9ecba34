"""Families built on the gated delta rule: Qwen3-Next, Qwen3.5, OLMo-Hybrid, Kimi-Linear."""

from collections.abc import Iterable

from milepost.footprint import blocks
from milepost.footprint.blocks import Block
from milepost.footprint.config_reader import ConfigReader
from milepost.footprint.families.config_blocks import FULL, LINEAR, mixture, mlp, softmax

__all__ = ["kimi_linear", "olmo_hybrid", "qwen_hybrid"]


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
            yield blocks.latent_attention(
                hidden,
                heads=config.integer("num_attention_heads"),
                latent=config.integer("kv_lora_rank"),
                query_latent=config.optional("q_lora_rank"),
                nope_dim=config.integer("qk_nope_head_dim"),
                rope_dim=config.integer("qk_rope_head_dim"),
                value_dim=config.integer("v_head_dim"),
                element_bytes=size,
            )
        if mlp_kind == "dense":
            yield mlp(config)
        else:
            inner = config.integer("moe_intermediate_size")
            yield mixture(config, "moe_intermediate_size") + blocks.dense_mlp(hidden, inner * shared)
