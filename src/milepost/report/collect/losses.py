"""What became of the prompt tokens, window by window of requests."""

from dataclasses import dataclass
from typing import final

from milepost.accounting import RequestReport
from milepost.errors import ConfigurationError

__all__ = ["LossWindows", "Window"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The account of some consecutive requests, in tokens; the five parts add up to ``num_tokens``.

    Attributes:
        first_request: Number of its first request, from 0.
        num_requests: How many there are.
    """

    first_request: int
    num_requests: int
    num_tokens: int
    reused: int
    unseen: int
    alignment: int
    placement: int
    eviction: int

    def share(self, part: str) -> float:
        """Return one part of the five as a share of the window's tokens."""
        amount: int = getattr(self, part)
        return amount / self.num_tokens if self.num_tokens else 0.0


@final
class LossWindows:
    """Between ``max_windows / 2`` and ``max_windows`` windows of one width, once there are enough requests.

    The length of a stream is not known before its end: windows begin one request wide, and each time there
    are too many of them, neighbours are joined and the width doubles.
    """

    def __init__(self, *, max_windows: int = 48) -> None:
        if max_windows < 2 or max_windows % 2:
            raise ConfigurationError(f"max_windows={max_windows}; give an even number of at least 2")
        self._max_windows = max_windows
        self._windows: list[Window] = []
        self.window_requests = 1

    def add(self, report: RequestReport) -> None:
        """Count one more request. O(1) amortised."""
        last = self._windows[-1] if self._windows else None
        new = _window(last.first_request + last.num_requests if last else 0, report)
        if last is not None and last.num_requests < self.window_requests:
            self._windows[-1] = _joined(last, new)
            return
        if len(self._windows) == self._max_windows:
            pairs = zip(self._windows[::2], self._windows[1::2], strict=True)
            self._windows = [_joined(first, second) for first, second in pairs]
            self.window_requests *= 2
        self._windows.append(new)

    @property
    def windows(self) -> tuple[Window, ...]:
        """All windows in order; the last may be narrower."""
        return tuple(self._windows)

    def total(self) -> Window:
        """Return all windows as one."""
        total = Window(
            first_request=0,
            num_requests=0,
            num_tokens=0,
            reused=0,
            unseen=0,
            alignment=0,
            placement=0,
            eviction=0,
        )
        for window in self._windows:
            total = _joined(total, window)
        return total


def _window(first_request: int, report: RequestReport) -> Window:
    return Window(
        first_request=first_request,
        num_requests=1,
        num_tokens=report.num_tokens,
        reused=report.reused,
        unseen=report.unseen,
        alignment=report.alignment,
        placement=report.placement,
        eviction=report.eviction,
    )


def _joined(first: Window, second: Window) -> Window:
    return Window(
        first_request=first.first_request,
        num_requests=first.num_requests + second.num_requests,
        num_tokens=first.num_tokens + second.num_tokens,
        reused=first.reused + second.reused,
        unseen=first.unseen + second.unseen,
        alignment=first.alignment + second.alignment,
        placement=first.placement + second.placement,
        eviction=first.eviction + second.eviction,
    )
