"""A device whose work is put off: it does what it must at the last moment, and in the order that hurts most.

Work is given to one of two queues, what the device computes and what is copied, and runs when somebody waits.
Then the copies run first wherever nothing was said against it, or last, as is asked.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch


@dataclass(eq=False)
class SlowDevice:
    """See the module.

    Attributes:
        prefers_copies: Whether copies run as early as they may, or as late.
    """

    prefers_copies: bool = True
    computed: list[Callable[[], None]] = field(default_factory=list)
    copied: list[tuple[int, Callable[[], None]]] = field(default_factory=list)
    num_computed: int = 0
    num_copied: int = 0
    _follows: int = 0

    def compute(self, work: Callable[[], None]) -> None:
        """Have the device do ``work`` some time."""
        self.computed.append(work)

    def run(self) -> None:
        """Do all that was given."""
        if self.prefers_copies:
            self.copy_until(len(self.copied))
        self.compute_until(len(self.computed))
        self.copy_until(len(self.copied))

    def compute_until(self, count: int) -> None:
        while self.num_computed < count:
            work = self.computed[self.num_computed]
            self.num_computed += 1
            work()

    def copy_until(self, count: int) -> None:
        while self.num_copied < count:
            follows, work = self.copied[self.num_copied]
            self.compute_until(follows)
            self.num_copied += 1
            work()

    # What follows is its queue of copies; see ``transfers.CopyQueue``.

    def follow(self) -> None:
        self._follows = len(self.computed)

    def copy(self, source: torch.Tensor, target: torch.Tensor) -> None:
        self.copied.append((self._follows, lambda: target.copy_(source)))

    def mark(self) -> "Reached":
        return Reached(self, len(self.copied))


@dataclass(frozen=True)
class Reached:
    device: SlowDevice
    count: int

    def is_reached(self) -> bool:
        return self.device.num_copied >= self.count

    def wait(self) -> None:
        if not self.device.prefers_copies:
            # Whatever may be done before is.
            self.device.compute_until(len(self.device.computed))
        self.device.copy_until(self.count)
