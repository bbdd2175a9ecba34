"""Ten families of GGUF models at a size that one chooses: what their files say, and which tensors they hold.

Weights are random and wide, so that a state of another prompt moves the logits by far more than rounding.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["FAMILIES", "Family", "Sizes", "Tensor", "family"]

Kind = Literal["matrix", "values"]
# Heads of attention, and of its keys.
_HEADS, _KEY_HEADS = 4, 2
# Recurrent heads have this many entries; RWKV's kernel wants twice as many.
_HEAD = 32
_RWKV_HEAD = 64
_KERNEL = 4
_RANK = 16


@dataclass(frozen=True)
class Sizes:
    """How large a model is; ``width`` is a multiple of 128."""

    width: int = 128
    layers: int = 4
    vocabulary: int = 512

    @property
    def head(self) -> int:
        """Entries of a head of attention."""
        return self.width // _HEADS

    @property
    def inner(self) -> int:
        """Channels of a state space model."""
        return 2 * self.width


@dataclass(frozen=True)
class Tensor:
    """A tensor to draw: ``mean`` and ``spread`` of its values, or a matrix whose outputs are ``gain`` times
    as large as its inputs, which are its last axis.
    """

    name: str
    shape: tuple[int, ...]
    kind: Kind = "values"
    mean: float = 0.0
    spread: float = 0.0
    gain: float = 1.5
    is_decay: bool = False
    """Values are turned into ``-exp(value)``."""


@dataclass(frozen=True)
class Family:
    """A family at one size.

    Attributes:
        keys: What the file says, without the family's name before it.
        tensors: What it holds.
    """

    keys: dict[str, Any]
    tensors: list[Tensor]


def family(name: str, sizes: Sizes) -> Family:
    """Return the family of this name at this size."""
    keys, tensors = _MAKERS[name](sizes)
    return Family({"feed_forward_length": 2 * sizes.width, **keys}, [*_ends(sizes), *tensors])


def _matrix(name: str, outputs: int, inputs: int, gain: float = 1.5) -> Tensor:
    return Tensor(f"{name}.weight", (outputs, inputs), kind="matrix", gain=gain)


def _ones(name: str, *shape: int) -> Tensor:
    return Tensor(f"{name}.weight", shape, mean=1.0)


def _ends(sizes: Sizes) -> Iterator[Tensor]:
    yield _matrix("token_embd", sizes.vocabulary, sizes.width, gain=3)
    yield _matrix("output", sizes.vocabulary, sizes.width, gain=4)


def _blocks(sizes: Sizes) -> Iterator[tuple[int, str]]:
    for layer in range(sizes.layers):
        yield layer, f"blk.{layer}."


def _norms(sizes: Sizes, *names: str, last: str = "output_norm") -> Iterator[Tensor]:
    yield _ones(last, sizes.width)
    for _, block in _blocks(sizes):
        for name in names:
            yield _ones(block + name, sizes.width)


def _feed_forward(sizes: Sizes, block: str) -> Iterator[Tensor]:
    for name in ("gate", "up"):
        yield _matrix(f"{block}ffn_{name}", 2 * sizes.width, sizes.width)
    yield _matrix(f"{block}ffn_down", sizes.width, 2 * sizes.width)


def _attention(sizes: Sizes, block: str, *, gated: bool = False, normed: bool = False) -> Iterator[Tensor]:
    whole, keys = _HEADS * sizes.head, _KEY_HEADS * sizes.head
    yield _matrix(f"{block}attn_q", whole * (2 if gated else 1), sizes.width)
    yield _matrix(f"{block}attn_k", keys, sizes.width)
    yield _matrix(f"{block}attn_v", keys, sizes.width)
    yield _matrix(f"{block}attn_output", sizes.width, whole)
    if normed:
        yield _ones(f"{block}attn_q_norm", sizes.head)
        yield _ones(f"{block}attn_k_norm", sizes.head)


def _attention_keys(sizes: Sizes, *, in_layers: range | None = None) -> dict[str, Any]:
    key_heads: Any = _KEY_HEADS
    if in_layers is not None:
        key_heads = [_KEY_HEADS if layer in in_layers else 0 for layer in range(sizes.layers)]
    return {
        "attention.head_count": _HEADS,
        "attention.head_count_kv": key_heads,
        "attention.key_length": sizes.head,
        "attention.value_length": sizes.head,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": sizes.head,
        "rope.freq_base": 1e4,
    }


def _space_keys(*, inner: int, state: int, rank: int, groups: int | None = None) -> dict[str, Any]:
    keys = {"conv_kernel": _KERNEL, "inner_size": inner, "state_size": state, "time_step_rank": rank}
    if groups is not None:
        keys["group_count"] = groups
    return {f"ssm.{key}": value for key, value in keys.items()}


def _without_attention() -> dict[str, Any]:
    return {"feed_forward_length": 0, "attention.head_count": 0, "attention.layer_norm_rms_epsilon": 1e-5}


def _mamba_mixer(sizes: Sizes, block: str, *, normed: bool = False) -> Iterator[Tensor]:
    inner, state, rank = sizes.inner, 16, 8
    yield _matrix(f"{block}ssm_in", 2 * inner, sizes.width)
    yield Tensor(f"{block}ssm_conv1d.weight", (inner, _KERNEL), spread=0.5)
    yield Tensor(f"{block}ssm_conv1d.bias", (inner,), spread=0.1)
    yield _matrix(f"{block}ssm_x", rank + 2 * state, inner)
    yield Tensor(f"{block}ssm_dt.weight", (inner, rank), spread=0.3)
    yield Tensor(f"{block}ssm_dt.bias", (inner,), mean=-3, spread=0.1)
    yield Tensor(f"{block}ssm_a", (inner, state), mean=-3, spread=0.3, is_decay=True)
    yield Tensor(f"{block}ssm_d", (inner,), mean=1)
    yield _matrix(f"{block}ssm_out", sizes.width, inner)
    if normed:
        yield from (
            _ones(f"{block}ssm_{name}_norm", size)
            for name, size in (("dt", rank), ("b", state), ("c", state))
        )


def _mamba2_mixer(sizes: Sizes, block: str) -> Iterator[Tensor]:
    inner, state, heads = sizes.inner, _HEAD, sizes.inner // _HEAD
    channels = inner + 2 * state
    yield _matrix(f"{block}ssm_in", inner + channels + heads, sizes.width)
    yield Tensor(f"{block}ssm_conv1d.weight", (channels, _KERNEL), spread=0.5)
    yield Tensor(f"{block}ssm_conv1d.bias", (channels,), spread=0.1)
    yield Tensor(f"{block}ssm_dt.bias", (heads,), mean=-3, spread=0.3)
    yield Tensor(f"{block}ssm_a", (heads, 1), mean=-3, spread=0.3, is_decay=True)
    yield Tensor(f"{block}ssm_d", (heads, 1), mean=1)
    yield _ones(f"{block}ssm_norm", 1, inner)
    yield _matrix(f"{block}ssm_out", sizes.width, inner)


def _mamba2_keys(sizes: Sizes) -> dict[str, Any]:
    return _space_keys(inner=sizes.inner, state=_HEAD, rank=sizes.inner // _HEAD, groups=1)


def _llama(sizes: Sizes) -> tuple[dict[str, Any], list[Tensor]]:
    tensors = list(_norms(sizes, "attn_norm", "ffn_norm"))
    for _, block in _blocks(sizes):
        tensors += [*_attention(sizes, block), *_feed_forward(sizes, block)]
    return _attention_keys(sizes), tensors


def _mamba(sizes: Sizes) -> tuple[dict[str, Any], list[Tensor]]:
    tensors = list(_norms(sizes, "attn_norm"))
    for _, block in _blocks(sizes):
        tensors += _mamba_mixer(sizes, block)
    return _without_attention() | _space_keys(inner=sizes.inner, state=16, rank=8), tensors


def _mamba2(sizes: Sizes) -> tuple[dict[str, Any], list[Tensor]]:
    tensors = list(_norms(sizes, "attn_norm"))
    for _, block in _blocks(sizes):
        tensors += _mamba2_mixer(sizes, block)
    return _without_attention() | _mamba2_keys(sizes), tensors


def _falcon_h1(sizes: Sizes) -> tuple[dict[str, Any], list[Tensor]]:
    """Attention and Mamba-2 side by side in every layer."""
    tensors = list(_norms(sizes, "attn_norm"))
    for _, block in _blocks(sizes):
        tensors.append(Tensor(f"{block}ffn_norm", (sizes.width,), mean=1))
        tensors += [*_mamba2_mixer(sizes, block), *_attention(sizes, block), *_feed_forward(sizes, block)]
    return _attention_keys(sizes) | _mamba2_keys(sizes), tensors


def _granitehybrid(sizes: Sizes) -> tuple[dict[str, Any], list[Tensor]]:
    with_attention = range(2, sizes.layers, 4)
    tensors = list(_norms(sizes, "attn_norm", "ffn_norm"))
    for layer, block in _blocks(sizes):
        mixer = _attention if layer in with_attention else _mamba2_mixer
        tensors += [*mixer(sizes, block), *_feed_forward(sizes, block)]
    return _attention_keys(sizes, in_layers=with_attention) | _mamba2_keys(sizes), tensors


def _jamba(sizes: Sizes) -> tuple[dict[str, Any], list[Tensor]]:
    with_attention = range(2, sizes.layers, 4)
    tensors = list(_norms(sizes, "attn_norm", "ffn_norm"))
    for layer, block in _blocks(sizes):
        is_attention = layer in with_attention
        mixer = _attention(sizes, block) if is_attention else _mamba_mixer(sizes, block, normed=True)
        tensors += [*mixer, *_feed_forward(sizes, block)]
    keys = _attention_keys(sizes, in_layers=with_attention)
    return keys | _space_keys(inner=sizes.inner, state=16, rank=8), tensors


def _lfm2(sizes: Sizes) -> tuple[dict[str, Any], list[Tensor]]:
    """Short convolutions, which are forgotten after two tokens."""
    with_attention = range(2, sizes.layers, 4)
    tensors = list(_norms(sizes, "attn_norm", "ffn_norm", last="token_embd_norm"))
    for layer, block in _blocks(sizes):
        if layer in with_attention:
            tensors += _attention(sizes, block, normed=True)
        else:
            tensors += [
                _matrix(f"{block}shortconv.in_proj", 3 * sizes.width, sizes.width),
                Tensor(f"{block}shortconv.conv.weight", (sizes.width, 3), spread=0.6),
                _matrix(f"{block}shortconv.out_proj", sizes.width, sizes.width),
            ]
        tensors += _feed_forward(sizes, block)
    return _attention_keys(sizes, in_layers=with_attention) | {"shortconv.l_cache": 3}, tensors


def _delta_net(sizes: Sizes, block: str, *, fused: bool) -> Iterator[Tensor]:
    keys = max(2, sizes.width // 64)
    values = 2 * keys
    channels = (2 * keys + values) * _HEAD
    yield _matrix(f"{block}attn_qkv", channels, sizes.width)
    yield _matrix(f"{block}attn_gate", values * _HEAD, sizes.width)
    yield Tensor(f"{block}ssm_conv1d.weight", (channels, _KERNEL), spread=0.5)
    yield Tensor(f"{block}ssm_dt.bias", (values,), mean=-1, spread=0.3)
    yield Tensor(f"{block}ssm_a", (values,), mean=-0.1, spread=0.01)
    if fused:
        yield _matrix(f"{block}ssm_ba", 2 * values, sizes.width)
    else:
        yield _matrix(f"{block}ssm_beta", values, sizes.width)
        yield _matrix(f"{block}ssm_alpha", values, sizes.width)
    yield _ones(f"{block}ssm_norm", _HEAD)
    yield _matrix(f"{block}ssm_out", sizes.width, values * _HEAD)


def _experts(sizes: Sizes, block: str) -> Iterator[Tensor]:
    width, number = sizes.width, 4
    yield _matrix(f"{block}ffn_gate_inp", number, width)
    yield Tensor(f"{block}ffn_gate_inp_shexp.weight", (width,), spread=0.1)
    for name in ("gate", "up", "down"):
        yield Tensor(f"{block}ffn_{name}_exps.weight", (number, width, width), kind="matrix")
        yield _matrix(f"{block}ffn_{name}_shexp", width, width)


def _qwen35(sizes: Sizes, *, has_experts: bool = False) -> tuple[dict[str, Any], list[Tensor]]:
    """Gated DeltaNet, and gated attention in every fourth layer."""
    keys = max(2, sizes.width // 64)
    inner = 2 * keys * _HEAD
    said = _attention_keys(sizes) | _space_keys(inner=inner, state=_HEAD, rank=2 * keys, groups=keys)
    said |= {"full_attention_interval": 4, "attention.layer_norm_rms_epsilon": 1e-6}
    if has_experts:
        said |= {"expert_count": 4, "expert_used_count": 2}
        said |= {"expert_feed_forward_length": sizes.width, "expert_shared_feed_forward_length": sizes.width}
    else:
        part = sizes.head // 8
        said["rope.dimension_sections"] = [sizes.head // 2 - 2 * part, part, part, 0]
    tensors = list(_norms(sizes, "attn_norm", "post_attention_norm"))
    for layer, block in _blocks(sizes):
        is_attention = layer % 4 == 3
        tensors += (
            _attention(sizes, block, gated=True, normed=True)
            if is_attention
            else _delta_net(sizes, block, fused=has_experts)
        )
        tensors += _experts(sizes, block) if has_experts else _feed_forward(sizes, block)
    return said, tensors


def _qwen3next(sizes: Sizes) -> tuple[dict[str, Any], list[Tensor]]:
    return _qwen35(sizes, has_experts=True)


def _rwkv7(sizes: Sizes) -> tuple[dict[str, Any], list[Tensor]]:
    width = sizes.width
    ranks = ("decay", "iclr", "value_residual_mix", "gate")
    keys = {
        "attention.head_count": 0,
        "attention.layer_norm_epsilon": 1e-5,
        "feed_forward_length": 4 * width,
        "wkv.head_size": _RWKV_HEAD,
        "token_shift_count": 2,
        **{f"attention.{rank}_lora_rank": _RANK for rank in ranks},
    }
    tensors = list(_biased_norms(width, "token_embd_norm", "output_norm"))
    for _, block in _blocks(sizes):
        names = (f"{block}attn_norm", f"{block}attn_norm_2", f"{block}time_mix_ln")
        tensors += [*_biased_norms(width, *names), *_time_mix(width, f"{block}time_mix_")]
        tensors += [
            Tensor(f"{block}channel_mix_lerp_k.weight", (1, 1, width), mean=0.5, spread=0.2),
            _matrix(f"{block}channel_mix_key", 4 * width, width),
            _matrix(f"{block}channel_mix_value", width, 4 * width),
        ]
    return keys, tensors


def _biased_norms(width: int, *names: str) -> Iterator[Tensor]:
    for name in names:
        yield _ones(name, width)
        yield Tensor(f"{name}.bias", (width,), spread=0.02)


def _time_mix(width: int, begin: str) -> Iterator[Tensor]:
    for letter, mean in (("w", -1.0), ("a", 0.0), ("v", 0.0)):
        yield Tensor(f"{begin}{letter}0.weight", (width,), mean=mean, spread=0.3)
        yield _matrix(f"{begin}{letter}1", _RANK, width)
        yield Tensor(f"{begin}{letter}2.weight", (width, _RANK), spread=0.2)
    yield _matrix(f"{begin}g1", _RANK, width)
    yield Tensor(f"{begin}g2.weight", (width, _RANK), spread=0.4)
    yield Tensor(f"{begin}lerp_fused.weight", (6, 1, 1, width), mean=0.5, spread=0.2)
    for name, mean, spread in (("k_k", 0.85, 0.1), ("k_a", 1.0, 0.1), ("r_k", 0.0, 0.1)):
        yield Tensor(f"{begin}{name}.weight", (width,), mean=mean, spread=spread)
    for name in ("key", "value", "receptance", "output"):
        yield _matrix(f"{begin}{name}", width, width)


_MAKERS = {
    "llama": _llama,
    "mamba": _mamba,
    "mamba2": _mamba2,
    "rwkv7": _rwkv7,
    "falcon-h1": _falcon_h1,
    "granitehybrid": _granitehybrid,
    "jamba": _jamba,
    "lfm2": _lfm2,
    "qwen35": _qwen35,
    "qwen3next": _qwen3next,
}
FAMILIES = tuple(_MAKERS)
