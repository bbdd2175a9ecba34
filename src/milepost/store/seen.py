"""What is remembered of the traffic along the tree: prompts, and the places where prompts have diverged."""

from typing import TYPE_CHECKING, final

from milepost.reuse import Tracked
from milepost.untracked import untracked

if TYPE_CHECKING:
    from milepost.store.checkpoint import Checkpoint
    from milepost.store.eviction_order import Group

__all__ = ["BranchPoint", "SeenPrompt"]


@final
class SeenPrompt(Tracked):
    """One prompt as it was seen. It owns the tokens ``[passed_tokens, num_tokens)`` of its path, those that
    no later prompt has passed through since, and the checkpoints on them.

    Attributes:
        num_tokens: Length of the prompt.
        generation: How many prompts in a row went on from one another before this one: the turn of a
            conversation, the number of the question about a document. Set by a policy that learns.
        has_branches: Whether prompts are known to diverge along its path, and counted where they do. Set by a
            policy that learns.
        passed_tokens: Leading tokens that later prompts have passed through; they own those.
        breakpoints: Where its messages end, or its client asked for a cache point, ascending.
        forecast: What a policy predicted for this prompt; the store never looks inside.
        owned: Its checkpoints, by serial.
        group: What ranks with this prompt in the order of evictions, which alone sets it.
    """

    __slots__ = (
        "breakpoints", "forecast", "generation", "group", "has_branches", "num_tokens", "owned",
        "passed_tokens",
    )  # fmt: skip

    def __init__(self, num_tokens: int, *, generation: int = 0, breakpoints: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.breakpoints = breakpoints
        self.num_tokens = num_tokens
        self.generation = generation
        self.has_branches = False
        self.passed_tokens = 0
        self.forecast: object | None = None
        self.owned: dict[int, Checkpoint] = untracked({})
        self.group: Group | None = None
        untracked(self)

    def own(self, checkpoint: "Checkpoint") -> None:
        """Own ``checkpoint`` from now on, in place of the prompt that did."""
        if checkpoint.owner is not None:
            del checkpoint.owner.owned[checkpoint.serial]
        checkpoint.owner = self
        self.owned[checkpoint.serial] = checkpoint
        untracked(self.owned)


@final
class BranchPoint(Tracked):
    """A position where prompts have diverged. The tree makes it; a policy that learns watches and annotates
    it.

    Attributes:
        position: Where, in tokens from the start.
        visits: How many prompts a policy has seen diverge here, or go on along an older branch of which
            nothing was held.
        covered_by: The checkpoint that those resume from, as it was last ranked.
    """

    __slots__ = ("covered_by", "position", "visits")

    def __init__(self, position: int) -> None:
        super().__init__()
        self.position = position
        self.visits = 0
        self.covered_by: Checkpoint | None = None
        untracked(self)
