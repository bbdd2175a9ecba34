"""Who answers for a part of the tree: the latest prompt through it, and the places where prompts part."""

from typing import Any

from milepost.reuse.hazard import Tracked

__all__ = ["Junction", "Sighting"]


class Sighting(Tracked):
    """One prompt as it was seen. It answers for the tokens ``[taken, num_tokens)`` of its path, those that no
    later prompt has passed through since.

    Attributes:
        num_tokens: Length of the prompt.
        generation: How many prompts in a row went on from one another before this one: the turn of a
            conversation, the number of the question about a document.
        taken: Leading tokens that later prompts have passed through; they answer for those.
        breakpoints: Where its messages end, or its client asked for a cache point, ascending.
        forecast: What the policy predicted for this prompt; the store never looks inside.
        held: The checkpoints that this prompt answers for, by serial.
    """

    __slots__ = ("breakpoints", "forecast", "generation", "held", "num_tokens", "taken")

    def __init__(self, num_tokens: int, *, generation: int = 0, breakpoints: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.breakpoints = breakpoints
        self.num_tokens = num_tokens
        self.generation = generation
        self.taken = 0
        self.forecast: Any = None
        self.held: dict[int, Any] = {}

    def hold(self, checkpoint: Any) -> None:
        """Answer for ``checkpoint`` from now on, in place of whoever did."""
        if checkpoint.sighting is not None:
            del checkpoint.sighting.held[checkpoint.serial]
        checkpoint.sighting = self
        self.held[checkpoint.serial] = checkpoint


class Junction(Tracked):
    """A position where prompts have parted.

    Attributes:
        visits: How many prompts parted here, beside the first.
        position: Where, in tokens from the start.
        covered_by: The checkpoint that those who part here resume from, as it was last ranked.
    """

    __slots__ = ("covered_by", "position", "visits")

    def __init__(self, position: int) -> None:
        super().__init__()
        self.position = position
        self.visits = 0
        self.covered_by: Any = None
