"""How fast something goes, by what was measured lately."""

from typing import final

__all__ = ["Speed"]

# What was measured weighs half as much after about seven more measurements.
_DECAY = 0.9
_DOUBT = 0.95


@final
class Speed:
    """An amount a second: bytes that a tier gives back, or cost that a model computes."""

    def __init__(self) -> None:
        self._amount = self._seconds = 0.0

    @property
    def is_known(self) -> bool:
        """Whether anything was measured."""
        return self._amount > 0.0 and self._seconds > 0.0

    def note(self, amount: float, seconds: float) -> None:
        """Learn that ``amount`` took ``seconds``."""
        if amount > 0.0 and seconds > 0.0:
            self._amount = _DECAY * self._amount + amount
            self._seconds = _DECAY * self._seconds + seconds

    def doubt(self) -> None:
        """Believe in a little more speed, where it was found too slow to be tried: else it would never be
        measured again.
        """
        self._seconds *= _DOUBT

    def seconds_for(self, amount: float) -> float:
        """Return how long ``amount`` takes; 0 where that is unknown, so that it is tried."""
        return amount * self._seconds / self._amount if self.is_known else 0.0

    def amount_in(self, seconds: float) -> float:
        """Return what is done in ``seconds``; 0 where that is unknown."""
        return seconds * self._amount / self._seconds if self.is_known else 0.0
