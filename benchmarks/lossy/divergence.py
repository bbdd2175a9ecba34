"""How far a resumed prompt is from the cold one: each next token of the answer, and its distribution."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from benchmarks.lossy.prompts import SharedPrompts
from benchmarks.lossy.rivals import Prefix, Rival
from benchmarks.lossy.suffix_replay import advance_in_pieces
from milepost.engines.transformers.driver import LiveCache, TransformersDriver

__all__ = ["Divergence", "measure_divergence"]


@dataclass(slots=True)
class Divergence:
    """What came of the prompts so far.

    Attributes:
        num_prompts: How many.
        num_tokens: Tokens of the cold run's greedy answers.
        num_differing: Those in whose place another would have been chosen, after the cold run's tokens.
        num_answers_differing: Answers with such a token: a free run goes its own way there.
        num_inexact: Prompts with a logit that differs in any bit.
        kl_sum: Of each of those tokens' distributions, cold against warm, in nats.
        kl_most: The largest.
    """

    num_prompts: int = 0
    num_tokens: int = 0
    num_differing: int = 0
    num_answers_differing: int = 0
    num_inexact: int = 0
    kl_sum: float = 0.0
    kl_most: float = 0.0

    def add(self, cold: torch.Tensor, warm: torch.Tensor) -> None:
        """Count one prompt, of which these are the logits, shape ``[answer tokens, vocabulary]``."""
        differing = int((cold.argmax(-1) != warm.argmax(-1)).sum())
        divergences = _divergences(cold, warm)
        self.num_prompts += 1
        self.num_tokens += len(cold)
        self.num_differing += differing
        self.num_answers_differing += differing > 0
        self.num_inexact += not torch.equal(cold.view(torch.uint8), warm.view(torch.uint8))
        self.kl_sum += float(divergences.sum())
        self.kl_most = max(self.kl_most, float(divergences.max()))

    @property
    def differing_share(self) -> float:
        """Of all tokens."""
        return self.num_differing / self.num_tokens

    @property
    def kl_mean(self) -> float:
        """Of all tokens."""
        return self.kl_sum / self.num_tokens


def measure_divergence(
    driver: TransformersDriver,
    prompts: Iterable[SharedPrompts],
    rivals: Mapping[str, Rival],
    *,
    piece_tokens: int,
    answer_tokens: int,
) -> dict[str, Divergence]:
    """Return how far each rival's answers are from those of cold runs.

    Args:
        driver: Runs the model.
        prompts: What is asked.
        rivals: By name.
        piece_tokens: Where prompts are cut, cold and warm.
        answer_tokens: Of each answer.
    """
    found = {name: Divergence() for name in rivals}
    for shared in prompts:
        prefix = _earlier_request(driver, shared, piece_tokens)
        states = {name: rival(prefix) for name, rival in rivals.items()}
        cut = shared.prefix.numel()
        for suffix in shared.suffixes:
            live = driver.start(num_tokens=cut + suffix.numel())
            advance_in_pieces(driver, live, shared.prefix, piece_tokens=piece_tokens)
            answer = _greedy_answer(driver, driver.branch(live), suffix, answer_tokens)
            cold = _logits(driver, live, suffix, answer)
            for name, state in states.items():
                warm = driver.restore(state, prefix.kv, position=cut, num_tokens=cut + suffix.numel())
                found[name].add(cold, _logits(driver, warm, suffix, answer))
    return found


def _earlier_request(driver: TransformersDriver, shared: SharedPrompts, piece_tokens: int) -> Prefix:
    """Run the prefix as a request of its own, which goes on after its state is taken."""
    cut = shared.prefix.numel()
    live = driver.start(num_tokens=cut)
    advance_in_pieces(driver, live, shared.prefix, piece_tokens=piece_tokens)
    state, kv = driver.capture(live), [driver.kv(live, 0, cut)]
    driver.advance(live, shared.suffixes[-1])
    return Prefix(driver, shared.prefix, state, kv, piece_tokens)


def _greedy_answer(
    driver: TransformersDriver, live: LiveCache, suffix: torch.Tensor, count: int
) -> Sequence[int]:
    logits = driver.advance(live, suffix)
    tokens = [int(logits.argmax())]
    while len(tokens) < count:
        tokens.append(int(driver.advance(live, torch.tensor(tokens[-1:])).argmax()))
    return tokens


def _logits(
    driver: TransformersDriver, live: LiveCache, suffix: torch.Tensor, answer: Sequence[int]
) -> torch.Tensor:
    """Return the logits that each token of ``answer`` is chosen by, shape ``[answer tokens, vocabulary]``."""
    first = driver.advance(live, suffix)
    return torch.cat((first[None], driver.advance_all(live, torch.tensor(answer[:-1]))))


def _divergences(cold: torch.Tensor, warm: torch.Tensor) -> torch.Tensor:
    ours, theirs = cold.double().log_softmax(-1), warm.double().log_softmax(-1)
    # Rounding may take one below zero.
    return (ours.exp() * (ours - theirs)).sum(-1).clamp(min=0.0)
