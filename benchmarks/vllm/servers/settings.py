"""How vLLM is told to keep states: what it does by itself, what an operator can make of it, and the plugin.

Stock vLLM ends a prefill chunk at the tail of a prompt, at a junction it has seen before, and where the
chunk budget runs out; only there is a state that it could keep. So ``dense`` and the intervals are worth
nothing at a wide budget, and both run at the best interval and budget of a small grid.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["MILEPOST", "OTHERWISE_CUT", "STOCK", "Setting", "candidates"]

# What vLLM's server takes by default on a GPU of 70 GB or more.
_DEFAULT_BUDGET_TOKENS = 8_192
_INTERVALS = (2, 4, 8)
_BUDGETS = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One way to run vLLM.

    Args:
        name: What tables call it; settings of one name differ in their budget only, of one family in the
            interval too.
        interval_blocks: Blocks between states that are retained; 0 for tail and junction only, None for all.
        budget_blocks: Most blocks of a step (``max_num_batched_tokens``), None for the default.
        scheduler: Import path of the scheduler, None for vLLM's own.
    """

    name: str
    interval_blocks: int | None = 0
    budget_blocks: int | None = None
    scheduler: str | None = None

    @property
    def family(self) -> str:
        """The name without its number."""
        return self.name.split()[0]

    @property
    def label(self) -> str:
        """The name, and the budget where it is not the default."""
        return self.name if self.budget_blocks is None else f"{self.name}, budget {self.budget_blocks}"

    def retention_tokens(self, block_tokens: int) -> int | None:
        """``prefix_cache_retention_interval`` for a model of these blocks."""
        return None if self.interval_blocks is None else self.interval_blocks * block_tokens

    def budget_tokens(self, block_tokens: int) -> int:
        """``max_num_batched_tokens`` for a model of these blocks."""
        return _DEFAULT_BUDGET_TOKENS if self.budget_blocks is None else self.budget_blocks * block_tokens

    def engine_arguments(self, block_tokens: int) -> dict[str, Any]:
        """Arguments of ``vllm.LLM`` for a model of these blocks."""
        arguments: dict[str, Any] = {
            "prefix_cache_retention_interval": self.retention_tokens(block_tokens),
            "max_num_batched_tokens": self.budget_tokens(block_tokens),
        }
        return arguments if self.scheduler is None else arguments | {"scheduler_cls": self.scheduler}


STOCK = Setting(name="stock")
# Cuts prompts at every block, so it shows how often another cut alone lets a near-tie of two tokens flip.
OTHERWISE_CUT = Setting(name="stock", budget_blocks=1)
MILEPOST = Setting(name="milepost", scheduler="milepost.vllm.Scheduler")


def candidates() -> Iterator[Setting]:
    """Yield what else stock vLLM can be told: each way to retain, at each budget that could suit it."""
    for interval, name in ((None, "dense"), *((blocks, f"interval {blocks}") for blocks in _INTERVALS)):
        for budget in (*_BUDGETS, None):
            # A budget that is no divisor of the interval ends chunks beside the states that are retained.
            if interval is None or budget is None or interval % budget == 0:
                yield Setting(name=name, interval_blocks=interval, budget_blocks=budget)
