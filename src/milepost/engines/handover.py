"""A prompt for a loop of somebody else's: computed up to its last piece, which ``generate`` begins with.

Tools with their own loop (constrained decoding, logits processors, assisted generation) call ``generate`` of
transformers. They are handed a cache of all but the prompt's last piece, and that piece: it is what an engine
would compute next in one call, so in strict numerics the loop's logits are the engine's own, bit for bit.
What the engine computed on the way is stored like that of any prompt. What the loop computes stays its own:
nobody saw which tokens went in, and a state whose tokens are in doubt is not kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from milepost.accounting import RequestReport
from milepost.engines.prompt_run import PromptRun
from milepost.engines.recall import Recall
from milepost.engines.requests import GenerationRequest
from milepost.engines.served_model import ServedModel
from milepost.errors import UnsupportedModelError

__all__ = ["Handover", "hand_over"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """What ``model.generate`` goes on from, once: it changes the cache.

    Attributes:
        model: Whose ``generate`` it is for: the one inside of a wrapper, with its family's fixes.
        arguments: For ``generate``, beside its own options: ``input_ids``, the prompt's last piece, of shape
            ``[1, num_left]``; ``attention_mask``, ones over the whole prompt; and the cache, by its name,
            with ``use_cache``, since a model that is set to have none would drop it without a word.
        position: Tokens that the cache has computed. What ``generate`` returns begins after them.
        report: Where the prompt's tokens went; those handed over count as computed.
    """

    model: Any
    arguments: Mapping[str, Any]
    position: int
    report: RequestReport

    @property
    def input_ids(self) -> torch.Tensor:
        """The prompt's last piece."""
        ids: torch.Tensor = self.arguments["input_ids"]
        return ids

    @property
    def attention_mask(self) -> torch.Tensor:
        """Ones over the whole prompt."""
        mask: torch.Tensor = self.arguments["attention_mask"]
        return mask

    @property
    def cache(self) -> Any:
        """The cache; None where nothing is computed yet."""
        names = self.arguments.keys() - {"input_ids", "attention_mask", "use_cache"}
        return self.arguments[names.pop()] if names else None


def hand_over(request: GenerationRequest, *, served: ServedModel, recall: Recall) -> Handover:
    """Compute and store a prompt up to its last piece; see the module and ``Engine.resume``."""
    if reason := served.driver.reason_against_loops(request.tokens.size):
        raise UnsupportedModelError(
            f"{served.driver.family} cannot be handed over to generate: {reason}; or use engine.generate"
        )
    run = PromptRun(
        request.tokens,
        tenant=request.tenant,
        breakpoints=request.breakpoints,
        # The last piece is not computed here, so no state may lie inside it.
        cuts=replace(served.cuts, are_states_inside=False),
        served=served,
        recall=recall,
    )
    try:
        while True:
            with served.ownership.turn("Engine.resume"):
                if not run.is_ready():
                    continue
                assert run.prefill is not None
                if run.prefill.is_at_last_piece:
                    break
                run.prefill.step()
        with served.ownership.turn("Engine.resume"):
            arguments = served.driver.hand_over(run.live, run.prefill.tokens)
            position = run.live.position
            run.store()
    finally:
        run.close(keeps=False)
    assert run.report is not None
    return Handover(
        model=getattr(served.driver, "model", None),
        arguments=arguments,
        position=position,
        report=run.report,
    )
