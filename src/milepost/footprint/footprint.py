"""What a checkpoint, a token of KV and a recomputed token cost, for one model.

Law: after ``p`` tokens, a sequence holds ``kv_bytes_per_token * p`` bytes that prompts can share token by
token, and ``checkpoint_bytes_at(p)`` bytes that only a checkpoint at exactly ``p`` can give back: recurrent
and convolution states, the last tokens of sliding windows, counters kept as tensors. The bytes are those of
one sequence's tensors in the transformers engine; Python integers and constants of a configuration are free.

Nothing here knows a tensor. Numbers come from a configuration, from measurements, or straight from the user.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from milepost.counts import as_count
from milepost.errors import ConfigurationError, InvalidRequestError
from milepost.footprint.cost import PrefillCost
from milepost.footprint.families import footprint_parts

__all__ = ["Footprint", "KVWindow", "MeasuredBytes"]


@dataclass(frozen=True, slots=True)
class KVWindow:
    """Keys and values of which only the last ``kept_tokens`` are held."""

    kept_tokens: int
    bytes_per_token: int

    def __post_init__(self) -> None:
        for name in ("kept_tokens", "bytes_per_token"):
            object.__setattr__(self, name, as_count(name, getattr(self, name)))


@dataclass(frozen=True, slots=True)
class MeasuredBytes:
    """Bytes of one sequence's tensors after ``num_tokens`` tokens, counted on a running model."""

    num_tokens: int
    state_bytes: int
    kv_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What one model's cached things cost.

    Attributes:
        checkpoint_bytes: One checkpoint at a position beyond all windows.
        kv_bytes_per_token: KV of one token in the layers that keep every token (the latent, for MLA).
        windows: The part of ``checkpoint_bytes`` that an early position has less of.
        cost: F(p), in tokens unless told otherwise.
        settled_tokens: Where a checkpoint was measured: before this position it may be smaller than said.

    Raises:
        ConfigurationError: a value breaks its rule.

    >>> footprint = Footprint(checkpoint_bytes=3_293_184, kv_bytes_per_token=2_048)
    >>> footprint.checkpoint_kv_tokens
    1608.0

    """

    checkpoint_bytes: int
    kv_bytes_per_token: int
    windows: tuple[KVWindow, ...] = ()
    cost: PrefillCost = field(default_factory=PrefillCost.tokens)
    settled_tokens: int = 0

    def __post_init__(self) -> None:
        for name in ("checkpoint_bytes", "kv_bytes_per_token", "settled_tokens"):
            object.__setattr__(self, name, as_count(name, getattr(self, name)))
        windows = self.windows
        if not isinstance(windows, tuple | list) or not all(isinstance(w, KVWindow) for w in windows):
            raise ConfigurationError(f"windows={windows!r}; give a tuple of KVWindow")
        object.__setattr__(self, "windows", tuple(windows))
        if not isinstance(self.cost, PrefillCost):
            raise ConfigurationError(f"cost={self.cost!r}; give a PrefillCost, such as PrefillCost.tokens()")
        if self.recurrent_bytes < 0:
            raise ConfigurationError(
                f"checkpoint_bytes={self.checkpoint_bytes} is less than its windows hold "
                f"({self.window_bytes}); count the full windows in"
            )

    @property
    def window_bytes(self) -> int:
        """Bytes of all windows when they are full."""
        return sum(window.kept_tokens * window.bytes_per_token for window in self.windows)

    @property
    def recurrent_bytes(self) -> int:
        """The part of a checkpoint that has one size at every position."""
        return self.checkpoint_bytes - self.window_bytes

    @property
    def checkpoint_kv_tokens(self) -> float | None:
        """Price of one checkpoint in tokens of KV: 0 where there is no state, None where there is no KV."""
        return self.checkpoint_bytes / self.kv_bytes_per_token if self.kv_bytes_per_token else None

    @property
    def is_stateless(self) -> bool:
        """Whether KV alone resumes at any position. Sliding windows are state: none can be rolled back."""
        return self.checkpoint_bytes == 0

    def checkpoint_bytes_at(self, position: int) -> int:
        """Return the bytes of one checkpoint after ``position`` tokens. O(windows)."""
        if position < 0:
            raise InvalidRequestError(f"position={position}; a checkpoint lies at 0 or after")
        return self.recurrent_bytes + sum(
            min(position, window.kept_tokens) * window.bytes_per_token for window in self.windows
        )

    def costs_before(self, positions: Sequence[int]) -> list[float]:
        """Return the relative cost of computing what lies before each position; where every token costs the
        same, that is the position.
        """
        if self.cost.is_linear or not positions:
            return [float(position) for position in positions]
        return [float(cost) for cost in self.cost(np.array(positions, np.int64))]

    @classmethod
    def from_config(cls, config: object, *, dtype: str | None = None) -> "Footprint":
        """Return the footprint of the model that ``config`` describes, its cost in FLOPs.

        Args:
            config: A ``config.json`` as a mapping, its path, its folder's, or an object with its attributes.
            dtype: Element type of weights and KV, such as ``"bfloat16"``; by default what ``config`` names.

        Raises:
            UnsupportedModelError: no formula is known for the family.
            ModelLoadError: the configuration is missing, broken or incomplete.
            ConfigurationError: the element type is unknown.

        """
        parts = footprint_parts(config, dtype=dtype)
        return cls(
            checkpoint_bytes=parts.checkpoint_bytes,
            kv_bytes_per_token=parts.kv_bytes_per_token,
            windows=tuple(KVWindow(kept, size) for kept, size in parts.kv_windows.items()),
            cost=parts.cost(),
        )

    @classmethod
    def from_measurements(
        cls, measurements: Iterable[MeasuredBytes], *, cost: PrefillCost | None = None
    ) -> "Footprint":
        """Return the footprint of a model that was run on prompts of two or more lengths.

        Every checkpoint is charged the size of the largest, so one in the first tokens of a sliding window
        is charged too much, never too little.

        Raises:
            ConfigurationError: fewer than two lengths; KV that does not grow by the same bytes with every
                token; or state that still grows between the two longest prompts.

        """
        by_length: Mapping[int, MeasuredBytes] = {m.num_tokens: m for m in measurements}
        ordered = [by_length[length] for length in sorted(by_length)]
        if len(ordered) < 2 or ordered[0].num_tokens < 1:
            raise ConfigurationError(
                f"measurements after {[m.num_tokens for m in ordered]} tokens; "
                "run the model on at least two different lengths above 0"
            )
        longest = ordered[-1]
        kv_bytes_per_token = longest.kv_bytes // longest.num_tokens
        for measured in ordered:
            if measured.kv_bytes != kv_bytes_per_token * measured.num_tokens:
                raise ConfigurationError(
                    f"kv_bytes={measured.kv_bytes} after {measured.num_tokens} tokens, but "
                    f"{longest.kv_bytes} after {longest.num_tokens}; KV takes the same bytes for every "
                    "token: count what grows otherwise as state"
                )
        if ordered[-2].state_bytes != longest.state_bytes:
            raise ConfigurationError(
                f"state_bytes={ordered[-2].state_bytes} after {ordered[-2].num_tokens} tokens and "
                f"{longest.state_bytes} after {longest.num_tokens}; a window is still filling: "
                "measure two lengths beyond the longest window"
            )
        return cls(
            checkpoint_bytes=max(measured.state_bytes for measured in ordered),
            kv_bytes_per_token=kv_bytes_per_token,
            cost=PrefillCost.tokens() if cost is None else cost,
            # Below the lengths that were measured, nothing is known.
            settled_tokens=ordered[-2].num_tokens,
        )
