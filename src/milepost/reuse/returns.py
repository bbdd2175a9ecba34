"""How many later requests a prompt brings, on average: what decides whether a capture pays for itself.

A mean for each class of prompts, shrunk towards that of all, which starts at one request a prompt: until
there is evidence, a capture is worth a try. Past ``_REMEMBERED`` prompts of a class, old evidence
counts half.
"""

import math
from collections.abc import Sequence
from typing import Any, final

__all__ = ["ReturnRates"]

# Evidence, in prompts, that the prior counts as.
_PRIOR_PROMPTS = 3.0
_PRIOR_RETURNS = 1.0
_REMEMBERED = 1024.0


@final
class ReturnRates:
    """See the module.

    Args:
        num_classes: Classes of prompts.
    """

    def __init__(self, num_classes: int) -> None:
        # All of them, and then each class.
        self._prompts = [0.0] * (1 + num_classes)
        self._returns = [0.0] * (1 + num_classes)

    def note_prompt(self, of_class: int) -> None:
        """Count a prompt that others may return to."""
        for each in (0, 1 + of_class):
            self._prompts[each] += 1.0
            if self._prompts[each] > _REMEMBERED:
                self._prompts[each] /= 2.0
                self._returns[each] /= 2.0

    def note_return(self, of_class: int) -> None:
        """Count a request that shares a prompt."""
        self._returns[0] += 1.0
        self._returns[1 + of_class] += 1.0

    def expected(self, of_class: int, *, proven: bool = False) -> float:
        """Return how many requests a prompt of this class will bring, above 0; ``proven`` starts at none
        instead of one, so that nothing is tried before there is evidence.
        """
        return self._shrunk(1 + of_class, towards=self._shrunk(0, towards=0.0 if proven else _PRIOR_RETURNS))

    def export(self) -> dict[str, Any]:
        """Return the counts, as plain numbers."""
        return {"prompts": list(self._prompts), "returns": list(self._returns)}

    def restore(self, exported: dict[str, Any]) -> None:
        """Take over what :meth:`export` gave; raise ``ValueError`` where that cannot be."""
        prompts = [float(each) for each in exported["prompts"]]
        returns = [float(each) for each in exported["returns"]]
        if not len(prompts) == len(returns) == len(self._prompts):
            raise ValueError(f"{len(prompts)} and {len(returns)} counts, not {len(self._prompts)}")
        if not all(math.isfinite(each) and each >= 0.0 for each in (*prompts, *returns)):
            raise ValueError("prompts and returns are numbers of at least 0")
        self._prompts, self._returns = prompts, returns

    def merge(self, exports: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return one export of several: the counts added up, and halved until they are as few as one table
        remembers.
        """
        prompts, returns = (
            [sum(place) for place in zip(*(each[name] for each in exports), strict=True)]
            for name in ("prompts", "returns")
        )
        halvings = [0.5 ** max(0, math.ceil(math.log2(max(1.0, num) / _REMEMBERED))) for num in prompts]
        return {
            "prompts": [num * halving for num, halving in zip(prompts, halvings, strict=True)],
            "returns": [num * halving for num, halving in zip(returns, halvings, strict=True)],
        }

    def _shrunk(self, at: int, *, towards: float) -> float:
        return (self._returns[at] + _PRIOR_PROMPTS * towards) / (self._prompts[at] + _PRIOR_PROMPTS)
