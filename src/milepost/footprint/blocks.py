"""The building blocks of today's models, each as what it keeps and what it computes.

A block says, for one sequence: how many weights a token passes through, what its recurrence costs, how many
bytes of state and of KV it leaves behind. A model is the sum of its blocks. A multiplication with its
addition counts as two FLOPs; norms, activations and biases are left out.

Recurrences are counted in the chunked form that prefill kernels run: inside a chunk of C tokens the products
of attention, 2 C (...) FLOPs a token, and between chunks the reads and writes of the state.
"""

from dataclasses import dataclass, field

from milepost.footprint.cost import PrefillCost, WindowedAttention

__all__ = [
    "Block",
    "attention",
    "dense_mlp",
    "gated_delta_rule",
    "latent_attention",
    "lightning_attention",
    "mamba1",
    "mamba2",
    "mixture",
    "mlstm",
    "rglru",
    "rwkv",
    "short_convolution",
]

FLOAT32_BYTES = 4
INT64_BYTES = 8
# Tokens in a chunk of the gated delta rule's kernels.
DELTA_RULE_CHUNK = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What one block keeps and computes; blocks add up.

    Attributes:
        weights: Weights that one token is multiplied with (of a mixture, those of the chosen experts).
        recurrent_flops: FLOPs of the recurrence, per token.
        pair_flops: FLOPs per (query, key) pair of full attention.
        window_pair_flops: The same for sliding windows, by window size.
        checkpoint_bytes: State of one checkpoint, windows full.
        kv_bytes_per_token: KV that is kept for every token.
        kv_windows: KV bytes per token by the number of tokens that a window keeps.

    """

    weights: int = 0
    recurrent_flops: int = 0
    pair_flops: int = 0
    window_pair_flops: dict[int, int] = field(default_factory=dict)
    checkpoint_bytes: int = 0
    kv_bytes_per_token: int = 0
    kv_windows: dict[int, int] = field(default_factory=dict)

    def __add__(self, other: "Block") -> "Block":
        return Block(
            weights=self.weights + other.weights,
            recurrent_flops=self.recurrent_flops + other.recurrent_flops,
            pair_flops=self.pair_flops + other.pair_flops,
            window_pair_flops=_merge(self.window_pair_flops, other.window_pair_flops),
            checkpoint_bytes=self.checkpoint_bytes + other.checkpoint_bytes,
            kv_bytes_per_token=self.kv_bytes_per_token + other.kv_bytes_per_token,
            kv_windows=_merge(self.kv_windows, other.kv_windows),
        )

    def cost(self) -> PrefillCost:
        """Return F(p) in FLOPs."""
        return PrefillCost(
            unit="flops",
            linear_per_token=2.0 * self.weights,
            recurrent_per_token=float(self.recurrent_flops),
            attention_per_pair=float(self.pair_flops),
            windows=tuple(
                WindowedAttention(tokens, float(flops)) for tokens, flops in self.window_pair_flops.items()
            ),
        )


def dense_mlp(hidden: int, inner: int, *, matrices: int = 3) -> Block:
    """A feed-forward block: gate, up and down, or up and down alone."""
    return Block(weights=matrices * hidden * inner)


def mixture(
    hidden: int, inner: int, *, experts: int, chosen: int, matrices: int = 3, expert_input: int | None = None
) -> Block:
    """A mixture of experts: the router and the chosen experts, which may work on a smaller latent."""
    width = hidden if expert_input is None else expert_input
    latent = 0 if expert_input is None else 2 * hidden * expert_input
    return Block(weights=hidden * experts + chosen * matrices * width * inner + latent)


def attention(
    hidden: int,
    *,
    heads: int,
    kv_heads: int,
    head_dim: int,
    element_bytes: int,
    window: int | None = None,
    gated: bool = False,
    input_size: int | None = None,
) -> Block:
    """Softmax attention over all tokens, or over the last ``window``, of which a cache keeps one fewer."""
    width = hidden if input_size is None else input_size
    queries = heads * head_dim
    weights = width * (queries * (2 if gated else 1) + 2 * kv_heads * head_dim) + queries * hidden
    kv_bytes = 2 * kv_heads * head_dim * element_bytes
    pair_flops = 4 * queries
    if window is None:
        return Block(weights=weights, pair_flops=pair_flops, kv_bytes_per_token=kv_bytes)
    return Block(
        weights=weights,
        window_pair_flops={window: pair_flops},
        checkpoint_bytes=(window - 1) * kv_bytes,
        kv_windows={window - 1: kv_bytes},
    )


def latent_attention(
    hidden: int,
    *,
    heads: int,
    latent: int,
    query_latent: int | None,
    nope_dim: int,
    rope_dim: int,
    value_dim: int,
    element_bytes: int,
) -> Block:
    """Multi-head latent attention: the cache keeps the latent, each pass expands it to heads."""
    queries = heads * (nope_dim + rope_dim)
    query_weights = (
        hidden * queries if query_latent is None else hidden * query_latent + query_latent * queries
    )
    return Block(
        weights=query_weights
        + hidden * (latent + rope_dim)
        + latent * heads * (nope_dim + value_dim)
        + heads * value_dim * hidden,
        pair_flops=2 * heads * (nope_dim + rope_dim + value_dim),
        kv_bytes_per_token=(latent + rope_dim) * element_bytes,
    )


def gated_delta_rule(
    hidden: int,
    *,
    key_heads: int,
    value_heads: int,
    key_dim: int,
    value_dim: int,
    kernel: int,
    gate_weights: int,
    element_bytes: int,
) -> Block:
    """Gated DeltaNet and Kimi Delta Attention: an fp32 matrix of ``key_dim x value_dim`` a value head.

    ``gate_weights`` are those of the decay, the step size and the output gate, where the two differ.
    """
    keys, values = key_heads * key_dim, value_heads * value_dim
    channels = 2 * keys + values
    inside_chunk = 2 * DELTA_RULE_CHUNK * (3 * key_dim + 2 * value_dim)
    return Block(
        weights=hidden * channels + values * hidden + channels * kernel + gate_weights,
        recurrent_flops=value_heads * (inside_chunk + 6 * key_dim * value_dim),
        checkpoint_bytes=channels * kernel * element_bytes
        + value_heads * key_dim * value_dim * FLOAT32_BYTES,
    )


def mamba2(
    hidden: int,
    *,
    heads: int,
    head_dim: int,
    state: int,
    groups: int,
    kernel: int,
    chunk: int,
    element_bytes: int,
) -> Block:
    """Mamba-2: an fp32 matrix of ``head_dim x state`` a head."""
    inner = heads * head_dim
    channels = inner + 2 * groups * state
    return Block(
        weights=hidden * (inner + channels + heads) + inner * hidden + channels * kernel,
        recurrent_flops=heads * (2 * chunk * (state + head_dim) + 4 * state * head_dim),
        checkpoint_bytes=channels * kernel * element_bytes + inner * state * FLOAT32_BYTES,
    )


def mamba1(
    hidden: int, *, inner: int, state: int, time_step_rank: int, kernel: int, element_bytes: int
) -> Block:
    """Mamba-1: an fp32 vector of ``state`` a channel, scanned token by token without matrix products."""
    return Block(
        weights=hidden * 2 * inner
        + inner * (2 * time_step_rank + 2 * state)
        + inner * hidden
        + inner * kernel,
        recurrent_flops=6 * inner * state,
        checkpoint_bytes=inner * kernel * element_bytes + inner * state * FLOAT32_BYTES,
    )


def short_convolution(hidden: int, *, kernel: int, element_bytes: int) -> Block:
    """LFM2's gated short convolution: no recurrence, only the last ``kernel`` inputs."""
    return Block(
        weights=4 * hidden * hidden + hidden * kernel,
        checkpoint_bytes=hidden * kernel * element_bytes,
    )


def mlstm(
    hidden: int,
    *,
    heads: int,
    key_dim: int,
    value_dim: int,
    chunk: int,
    state_values: int,
    element_bytes: int,
) -> Block:
    """XLSTM's matrix memory, kept in the model's element type: memory, normalizer and stabilizer."""
    keys, values = heads * key_dim, heads * value_dim
    return Block(
        weights=hidden * (2 * keys + 3 * values + 2 * heads),
        recurrent_flops=heads * (2 * chunk * (key_dim + value_dim) + 4 * key_dim * value_dim),
        checkpoint_bytes=state_values * element_bytes,
    )


def rwkv(hidden: int, *, attention_hidden: int, inner: int, element_bytes: int) -> Block:
    """RWKV-4: two shifted inputs in the model's type, three fp32 running sums a channel."""
    time_mix = 4 * hidden * attention_hidden
    channel_mix = 2 * hidden * inner + hidden * hidden
    return Block(
        weights=time_mix + channel_mix,
        recurrent_flops=12 * attention_hidden,
        checkpoint_bytes=2 * hidden * element_bytes + 3 * hidden * FLOAT32_BYTES,
    )


def rglru(hidden: int, *, width: int, heads: int, kernel: int, element_bytes: int) -> Block:
    """RecurrentGemma's gated linear recurrence: one fp32 number a channel, ``kernel - 1`` inputs."""
    return Block(
        weights=3 * hidden * width + 2 * width * width // heads + width * kernel,
        recurrent_flops=4 * width,
        checkpoint_bytes=width * (kernel - 1) * element_bytes + width * FLOAT32_BYTES,
    )


def lightning_attention(hidden: int, *, heads: int, head_dim: int, chunk: int) -> Block:
    """MiniMax's lightning attention: an fp32 ``head_dim x head_dim`` matrix a head.

    Unmodified transformers keeps it in the model's type, and then cannot be resumed exactly.
    """
    return Block(
        weights=5 * hidden * heads * head_dim,
        recurrent_flops=heads * (4 * chunk * head_dim + 4 * head_dim * head_dim),
        checkpoint_bytes=heads * head_dim * head_dim * FLOAT32_BYTES,
    )


def _merge(left: dict[int, int], right: dict[int, int]) -> dict[int, int]:
    return {key: left.get(key, 0) + right.get(key, 0) for key in left | right}
