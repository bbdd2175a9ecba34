"""What the user has: a model, memory, and a log that tells positions apart so finely and no finer."""

from dataclasses import dataclass
from typing import Any

from milepost.footprint import Footprint
from milepost.footprint.config_reader import ConfigReader
from milepost.footprint.families import footprint_blocks
from milepost.simulator.setting import NOMINAL_KV_BYTES_PER_TOKEN

__all__ = ["ModelFamily", "ModelLayout", "Situation", "family_of", "layout_of", "nominal_layout"]

# vLLM rounds an attention block up to a multiple of this many tokens.
_BLOCK_STEP = 16
# Recurrent layers for each attention layer in most of today's hybrids.
_USUAL_RATIO = 3


@dataclass(frozen=True, slots=True)
class ModelLayout:
    """What vLLM makes of a hybrid model's layers.

    One pool of equal pages holds KV and states. A page has to hold the state of one layer, so an attention
    block is made as many tokens long as fill it; and a state takes one page for each attention layer's
    worth of recurrent layers.

    Attributes:
        block_tokens: Tokens of a block.
        pages_per_state: Pages of a state, where a block of KV takes one.
    """

    block_tokens: int
    pages_per_state: int


@dataclass(frozen=True, slots=True)
class ModelFamily:
    """What engines go by when they say whether they serve a model, and with which caches.

    Attributes:
        model_type: As its configuration names it.
        is_recurrent: Whether a layer has a recurrent state. Sliding windows are none.
    """

    model_type: str
    is_recurrent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What the user has.

    Attributes:
        model: As it is named in command lines; None where only costs are known.
        footprint: What a checkpoint and a token of KV cost.
        layout: What vLLM makes of the model.
        capacity_kv_tokens: Memory for states and KV, in tokens of KV.
        memory_bytes: The same in bytes, where known.
        key_tokens: Tokens of a block of the log, 1 where it has token ids.
        grid: The finest positions of states that are tried.
        family: What the model is; None where only costs are known.
    """

    model: str | None
    footprint: Footprint
    layout: ModelLayout
    capacity_kv_tokens: int
    memory_bytes: int | None
    key_tokens: int
    grid: int
    family: ModelFamily | None = None

    @property
    def is_recurrent(self) -> bool:
        """Whether there are recurrent states; where only costs are known, whether there is a state."""
        return not self.footprint.is_stateless if self.family is None else self.family.is_recurrent

    @property
    def capacity_bytes(self) -> int:
        """The memory in bytes, nominal ones where only tokens are known."""
        return self.capacity_kv_tokens * (self.footprint.kv_bytes_per_token or NOMINAL_KV_BYTES_PER_TOKEN)

    @property
    def model_name(self) -> str:
        """The model, or what stands for it in a command line."""
        return self.model or "MODEL"

    @property
    def memory_text(self) -> str:
        """The memory as it is written for Milepost, or what stands for it in a command line."""
        if self.memory_bytes is None:
            return "SIZE"
        for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20)):
            if self.memory_bytes % size == 0:
                return f"{self.memory_bytes // size}{unit}"
        return str(self.memory_bytes)


def family_of(config: Any) -> ModelFamily:
    """Return the family of the model that ``config`` describes.

    Raises:
        UnsupportedModelError: no formula is known for the family.
    """
    # Costs are asked for, so the type of numbers does not matter.
    blocks = footprint_blocks(config, dtype="float32")
    return ModelFamily(
        ConfigReader(config).outer_model_type,
        is_recurrent=any(block.checkpoint_bytes and not block.kv_windows for block in blocks),
    )


def layout_of(config: Any, *, dtype: str | None = None) -> ModelLayout | None:
    """Return the layout of the model that ``config`` describes; None where it has no recurrent states, or no
    KV.

    Raises:
        UnsupportedModelError: no formula is known for the family.
    """
    blocks = footprint_blocks(config, dtype=dtype)
    states = [block.checkpoint_bytes for block in blocks if block.checkpoint_bytes and not block.kv_windows]
    kv = [block.kv_bytes_per_token for block in blocks if block.kv_bytes_per_token]
    if not states or not kv:
        return None
    return ModelLayout(
        block_tokens=_round_up(-(-max(states) // max(kv)), _BLOCK_STEP),
        pages_per_state=-(-len(states) // len(kv)),
    )


def nominal_layout(footprint: Footprint) -> ModelLayout:
    """Return the layout of a model with three recurrent layers to an attention layer; of one without KV, or
    without states, blocks of the usual length.
    """
    if not footprint.kv_bytes_per_token or footprint.is_stateless:
        return ModelLayout(block_tokens=_BLOCK_STEP, pages_per_state=1)
    tokens = footprint.checkpoint_bytes / footprint.kv_bytes_per_token / _USUAL_RATIO
    return ModelLayout(
        block_tokens=max(_BLOCK_STEP, _round_up(round(tokens), _BLOCK_STEP)), pages_per_state=_USUAL_RATIO
    )


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step
