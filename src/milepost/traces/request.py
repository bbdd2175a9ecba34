"""One request of a trace: what was asked, as keys whose equal beginnings mean equal prompts."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from milepost.errors import InvalidRequestError

__all__ = ["TraceRequest"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TraceRequest:
    """The prompt of one request, reduced to what prefix caching can see of it.

    Two prompts share their first ``i * key_tokens`` tokens where they share their first ``i`` keys. Only
    leading keys are ever compared, so a log may number its blocks by content alone or by content and all
    that lies before.

    Args:
        keys: One key per ``key_tokens`` tokens, the last for what is left over; shape ``[num_keys]``, int64,
            not negative. Chained block hashes, or the token ids themselves where ``key_tokens`` is 1.
        key_tokens: Tokens per key.
        num_tokens: Length of the prompt; ``ceil(num_tokens / key_tokens) == num_keys``.
        request_id: A label for reports, not necessarily unique.
        output_tokens: Tokens that were generated.
        arrival_seconds: When it came, on the log's own clock. The order of a trace is the order of arrival,
            whatever the clock says.
        session: Which conversation it belongs to, for reports. No policy sees it.
        tenant: Prompts of different tenants share nothing (``cache_salt``).
        breakpoints: Token positions where a message ends or the client asked for a cache point, ascending.

    Raises:
        InvalidRequestError: a value breaks its rule.

    Complexity: O(num_keys); the keys are copied only where the caller could still write to them.

    >>> request = TraceRequest(keys=np.array([7, 8]), key_tokens=16, num_tokens=20, request_id="a")
    >>> request.keys.flags.writeable
    False
    """

    keys: npt.NDArray[np.int64]
    key_tokens: int
    num_tokens: int
    request_id: str
    output_tokens: int | None = None
    arrival_seconds: float | None = None
    session: str | None = None
    tenant: str = ""
    breakpoints: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        keys = self.keys
        if not isinstance(keys, np.ndarray) or keys.dtype != np.int64 or keys.ndim != 1:
            raise InvalidRequestError(
                "keys are not a one-dimensional int64 array; convert them with np.int64"
            )
        if self.key_tokens < 1 or self.num_tokens < 1:
            raise InvalidRequestError(
                f"key_tokens={self.key_tokens}, num_tokens={self.num_tokens}; both are at least 1"
            )
        expected = -(-self.num_tokens // self.key_tokens)
        if keys.size != expected:
            raise InvalidRequestError(
                f"{keys.size} keys of {self.key_tokens} tokens do not cover num_tokens={self.num_tokens}; "
                f"give {expected}"
            )
        if int(keys.min()) < 0:
            raise InvalidRequestError(f"key {int(keys.min())} is negative; fold keys to 63 bits")
        if self.output_tokens is not None and self.output_tokens < 0:
            raise InvalidRequestError(f"output_tokens={self.output_tokens}; give 0 or more, or None")
        if self.arrival_seconds is not None and not np.isfinite(self.arrival_seconds):
            raise InvalidRequestError(f"arrival_seconds={self.arrival_seconds}; give a finite time, or None")
        before = 0
        for position in self.breakpoints:
            if not before < position <= self.num_tokens:
                raise InvalidRequestError(
                    f"breakpoint {position} after {before} in a prompt of {self.num_tokens} tokens; give "
                    "ascending positions inside the prompt"
                )
            before = position
        if keys.flags.writeable or not keys.flags.c_contiguous:
            keys = keys.copy()
            keys.flags.writeable = False
            object.__setattr__(self, "keys", keys)

    def __eq__(self, other: object) -> bool:
        # The generated comparison would ask an array of truths for one truth.
        if not isinstance(other, TraceRequest):
            return NotImplemented
        return self._labels() == other._labels() and np.array_equal(self.keys, other.keys)

    __hash__ = None  # type: ignore[assignment]

    def _labels(self) -> tuple[object, ...]:
        return (
            self.key_tokens,
            self.num_tokens,
            self.request_id,
            self.output_tokens,
            self.arrival_seconds,
            self.session,
            self.tenant,
            self.breakpoints,
        )
