"""The cost F(p) of prefilling the first ``p`` tokens of a prompt.

Law: ``F(0) = 0``, F never falls, and resuming from position ``c`` costs ``F(p) - F(c)``. The terms are

    F(p) = (linear_per_token + recurrent_per_token) * p          every weight, every recurrence, once a token
         + attention_per_pair * p (p + 1) / 2                    full attention: query t reads t keys
         + sum over windows w of per_pair_w * pairs_w(p)         sliding windows: query t reads min(t, w) keys

in tokens, FLOPs or measured seconds, as ``unit`` says. What one forward pass costs whatever its length
(``fixed_per_pass``) is not part of F: a resumed prefill pays it as well, so it cannot be saved.
"""

from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt

from milepost.counts import as_count, as_number
from milepost.errors import ConfigurationError, InvalidRequestError

__all__ = ["PrefillCost", "WindowedAttention"]

_UNITS = ("tokens", "flops", "seconds")


@dataclass(frozen=True, slots=True)
class WindowedAttention:
    """Attention in which a query reads itself and the ``window_tokens - 1`` tokens before it.

    Attributes:
        window_tokens: Keys that one query reads once the window is full.
        per_pair: Cost of one (query, key) pair over all layers with this window, in the cost's unit.

    """

    window_tokens: int
    per_pair: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "window_tokens", as_count("window_tokens", self.window_tokens, least=1))
        as_number(f"per_pair of the window of {self.window_tokens}", self.per_pair)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillCost:
    """F(p): call it with a position or an array of positions.

    Attributes:
        unit: ``"tokens"``, ``"flops"`` or ``"seconds"``.
        linear_per_token: Matrix multiplications, two FLOPs per active weight. The output head is left out:
            a prefill needs it once, not once a token.
        recurrent_per_token: State updates and reads.
        attention_per_pair: One (query, key) pair over all layers of full attention.
        windows: Sliding-window attention, one entry a window size.
        fixed_per_pass: What any forward pass costs, however short; not part of F.

    >>> PrefillCost.tokens()(100)
    100.0
    >>> cost = PrefillCost(unit="flops", linear_per_token=10.0, attention_per_pair=2.0)
    >>> cost(3), cost.between(1, 3)
    (42.0, 30.0)

    """

    unit: str
    linear_per_token: float
    recurrent_per_token: float = 0.0
    attention_per_pair: float = 0.0
    windows: tuple[WindowedAttention, ...] = ()
    fixed_per_pass: float = 0.0

    def __post_init__(self) -> None:
        if self.unit not in _UNITS:
            raise ConfigurationError(f"unit={self.unit!r}; a cost is in one of {', '.join(_UNITS)}")
        for name in ("linear_per_token", "recurrent_per_token", "attention_per_pair", "fixed_per_pass"):
            object.__setattr__(self, name, as_number(name, getattr(self, name)))
        windows = self.windows
        if not isinstance(windows, tuple | list) or not all(
            isinstance(w, WindowedAttention) for w in windows
        ):
            raise ConfigurationError(f"windows={windows!r}; give a tuple of WindowedAttention")
        object.__setattr__(self, "windows", tuple(windows))

    @classmethod
    def tokens(cls) -> "PrefillCost":
        """Return F(p) = p: every token costs the same."""
        return cls(unit="tokens", linear_per_token=1.0)

    @overload
    def __call__(self, num_tokens: int | float) -> float: ...
    @overload
    def __call__(self, num_tokens: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]: ...
    def __call__(self, num_tokens: int | float | npt.NDArray[np.generic]) -> float | npt.NDArray[np.float64]:
        """Return F(num_tokens), elementwise for an array. O(windows) a position."""
        cost = self._linear(_positions(num_tokens)) + self._attention(_positions(num_tokens))
        return cost if isinstance(num_tokens, np.ndarray) else float(cost)

    @property
    def is_linear(self) -> bool:
        """Whether every token costs the same, wherever it stands."""
        return self.attention_per_pair == 0 and not self.windows

    def between(self, start: int, stop: int) -> float:
        """Return ``F(stop) - F(start)``: what prefilling ``[start, stop)`` on a restored state costs."""
        if start > stop:
            raise InvalidRequestError(
                f"start={start} lies after stop={stop}; give the resume position first, then the end"
            )
        return self(stop) - self(start)

    def linear(self, num_tokens: int) -> float:
        """Return the part of F that grows with the number of tokens: weights and recurrences."""
        return float(self._linear(_positions(num_tokens)))

    def attention(self, num_tokens: int) -> float:
        """Return the part of F that grows with the number of (query, key) pairs."""
        return float(self._attention(_positions(num_tokens)))

    def _linear(self, positions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return (self.linear_per_token + self.recurrent_per_token) * positions

    def _attention(self, positions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        cost = self.attention_per_pair * positions * (positions + 1) / 2
        for window in self.windows:
            filling = np.minimum(positions, window.window_tokens)
            pairs = filling * (filling + 1) / 2 + (positions - filling) * window.window_tokens
            cost = cost + window.per_pair * pairs
        return cost


def _positions(num_tokens: int | float | npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    try:
        positions = np.asarray(num_tokens, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(f"num_tokens={num_tokens!r} is no number of tokens: {error}") from error
    if not np.all((positions >= 0) & np.isfinite(positions)):
        raise InvalidRequestError(f"num_tokens={num_tokens}; a prompt has at least 0 tokens")
    return positions
