"""Blocks whose numbers go by the same names in nearly every configuration."""

from milepost.footprint import blocks
from milepost.footprint.blocks import Block
from milepost.footprint.config_reader import ConfigReader

__all__ = ["FULL", "LINEAR", "SLIDING", "mixture", "mlp", "softmax"]

LINEAR, FULL, SLIDING = "linear_attention", "full_attention", "sliding_attention"


def softmax(
    config: ConfigReader,
    size: int,
    *,
    heads: int | None = None,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    window: int | None = None,
    gated: bool = False,
) -> Block:
    """Softmax attention; the numbers given are the family's defaults where the configuration is silent."""
    hidden = config.integer("hidden_size")
    num_heads = config.integer("num_attention_heads", default=heads, least=1)
    return blocks.attention(
        hidden,
        heads=num_heads,
        kv_heads=config.integer("num_key_value_heads", default=num_heads if kv_heads is None else kv_heads),
        head_dim=config.integer("head_dim", default=hidden // num_heads if head_dim is None else head_dim),
        element_bytes=size,
        window=window,
        gated=gated,
    )


def mlp(config: ConfigReader, *names: str, matrices: int = 3) -> Block:
    """Gate, up and down, or up and down alone; ``names`` are those of the inner size."""
    return blocks.dense_mlp(
        config.integer("hidden_size"), config.integer(*(names or ("intermediate_size",))), matrices=matrices
    )


def mixture(config: ConfigReader, inner: str) -> Block:
    """A mixture of experts of three matrices, whose inner size goes by the name ``inner``."""
    return blocks.mixture(
        config.integer("hidden_size"),
        config.integer(inner),
        experts=config.integer("num_local_experts", "num_experts"),
        chosen=config.integer("num_experts_per_tok", "num_experts_per_token"),
    )
