"""How likely continuations of contexts are: each context is computed once, resumed from what begins alike.

An evaluation asks for the log-probabilities of several continuations of a context, and of many contexts that
share a document or examples. The whole list is known, so the contexts are taken in the order of their tokens:
those that share most stand next to each other, and where the later ones part from one is known when its turn
comes. A state is kept exactly there. Each continuation goes on from a branch of the live context; its first
token's logits are the context's last, so one of a single token costs nothing.

A continuation is cut where its context ends, and from there on as a prompt is, whatever was resumed from. So
in strict numerics a score is a function of context and continuation: the same bits cold, warm, in any order
and in any company. A score is ``log_softmax`` in float32, whatever type the model computes in.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch

from milepost.accounting import RequestReport
from milepost.engines.base import LiveSequence
from milepost.engines.prompt_run import PromptRun
from milepost.engines.prompts import Continued
from milepost.engines.recall import Recall
from milepost.engines.served_model import ServedModel
from milepost.engines.sharing import Sharing
from milepost.tokens import TokenArray

__all__ = ["Score", "ScoredContext", "Scoring"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How likely one continuation is.

    Attributes:
        logprob: Logarithm of its probability after the context: the sum over its tokens.
        token_logprobs: Of each token, given all before it.
        likeliest: The likeliest token in each one's place, and its log-probability.
        is_greedy: Whether each token is the likeliest, so that greedy decoding would have said it.
    """

    logprob: float
    token_logprobs: tuple[float, ...]
    likeliest: tuple[tuple[int, float], ...]
    is_greedy: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredContext:
    """One context whose continuations are scored, for who watches.

    Attributes:
        num_scored: Continuations scored so far, this context's among them.
        num_all: Continuations that were asked for.
        scores: Of each of its continuations: the number of the request, of the continuation in it, and its
            score.
        report: Where the context's tokens went.
        continuation_tokens: Tokens computed after it.
        separate_tokens: Tokens that are computed where each continuation is run with its context, alone.
    """

    num_scored: int
    num_all: int
    scores: tuple[tuple[int, int, Score], ...]
    report: RequestReport
    continuation_tokens: int
    separate_tokens: int


# Continuations, and where in the results their scores go: the request, and the place in it.
_Alike = list[tuple[tuple[int, int], TokenArray]]


@dataclass(slots=True)
class _Context:
    """A context with all its continuations."""

    tokens: TokenArray
    sequence_tokens: int
    continuations: _Alike = field(default_factory=list)
    parting_positions: tuple[int, ...] = ()


class Scoring:
    """Scores on one engine's model and cache. See the module."""

    def __init__(self, served: ServedModel, recall: Recall, *, sharing: Sharing) -> None:
        self._served, self._recall, self._sharing = served, recall, sharing
        # What is computed at once holds a row of the vocabulary for each token.
        self._cuts = replace(served.cuts, every=min(served.cuts.every, served.segment_tokens))

    def run(
        self,
        requests: Sequence[Sequence[Continued]],
        *,
        tenant: str,
        on_context: Callable[[ScoredContext], None] | None,
    ) -> list[list[Score]]:
        """Return the scores of each request's continuations, in the order given; see ``Engine.score_many``.

        Complexity: O(tokens computed), and the tokens once for sorting.
        """
        contexts = self._contexts(requests)
        scores: dict[tuple[int, int], Score] = {}
        num_all = sum(map(len, requests))
        for context in contexts:
            # Others may have had a turn since, and have changed the model.
            self._served.admission.distrust()
            report, num_computed = self._score(context, scores, tenant=tenant)
            if on_context is not None:
                on_context(
                    ScoredContext(
                        num_scored=len(scores),
                        num_all=num_all,
                        scores=tuple((*where, scores[where]) for where, _ in context.continuations),
                        report=report,
                        continuation_tokens=num_computed,
                        separate_tokens=sum(
                            context.tokens.size + each.size - 1 for _, each in context.continuations
                        ),
                    )
                )
        return [[scores[index, place] for place in range(len(asked))] for index, asked in enumerate(requests)]

    def _contexts(self, requests: Iterable[Sequence[Continued]]) -> list[_Context]:
        """Return the different contexts in the order of their tokens, each with where later ones part."""
        found: dict[tuple[int, bytes], _Context] = {}
        for index, request in enumerate(requests):
            for place, (tokens, continuation) in enumerate(request):
                num_tokens = tokens.size + continuation.size - 1
                # Bytes of which the highest comes first are in the order of the numbers.
                key = self._served.driver.frequency_length(num_tokens), tokens.astype(">i4").tobytes()
                context = found.setdefault(key, _Context(tokens, num_tokens))
                context.continuations.append(((index, place), continuation))
        ordered = [found[key] for key in sorted(found)]
        ahead: list[int] = []
        for one, later in zip(reversed(ordered[:-1]), reversed(ordered[1:]), strict=True):
            # Of those that come later none diverges from this one after the next, all others where that does.
            parting = self._sharing.parting(one.tokens, later.tokens)
            ahead = [each for each in ahead if each < parting] + [parting] * (parting > 0)
            one.parting_positions = tuple(ahead)
        return ordered

    def _score(
        self, context: _Context, scores: dict[tuple[int, int], Score], *, tenant: str
    ) -> tuple[RequestReport, int]:
        """Compute one context, and score its continuations into ``scores``."""
        run = PromptRun(
            context.tokens,
            tenant=tenant,
            sequence_tokens=context.sequence_tokens,
            served=self._served,
            recall=self._recall,
        )
        run.parting_positions = context.parting_positions
        num_computed = 0
        found: dict[tuple[int, int], Score] = {}
        try:
            while not run.is_done:
                with self._served.ownership.turn("Engine.score"):
                    run.step()
            *others, last = _alike_but_for_the_last(context.continuations)
            for alike in others:
                with self._served.ownership.turn("Engine.score"):
                    run.require_model()
                    found.update(self._branched(run, alike))
                num_computed += alike[0][1].size - 1
            with self._served.ownership.turn("Engine.score"):
                # Nobody needs the context after the last ones.
                found.update(self._continued(run.live, run.logits, last))
                run.require_model(closely=True)
            num_computed += last[0][1].size - 1
        finally:
            run.close(keeps=False)
        assert run.report is not None
        scores.update(found)
        return run.report, num_computed

    def _branched(self, run: PromptRun, alike: _Alike) -> dict[tuple[int, int], Score]:
        if alike[0][1].size == 1:
            return self._continued(run.live, run.logits, alike)
        branch = self._served.driver.branch(run.live)
        try:
            return self._continued(branch, run.logits, alike)
        finally:
            self._served.driver.close(branch)

    def _continued(
        self, live: LiveSequence, logits: torch.Tensor, alike: _Alike
    ) -> dict[tuple[int, int], Score]:
        """Return the scores of continuations alike but for their last tokens; ``live`` goes on to those."""
        driver = self._served.driver
        head = torch.from_numpy(alike[0][1][:-1].astype("int64")).to(driver.device)
        start, end = live.position, live.position + head.numel()
        logprobs: list[float] = []
        likeliest: list[tuple[int, float]] = []
        rows = logits[None]
        while live.position < end:
            begin = live.position - start
            found, best = _read_off(rows, head[len(logprobs) : begin + 1])
            logprobs += found
            likeliest += best
            stop = self._cuts.next(live.position, end, ()) - start
            rows = driver.advance_all(live, head[begin:stop])
        found, best = _read_off(rows[:-1], head[len(logprobs) :])
        logprobs += found
        likeliest += best
        is_greedy = [token for token, _ in likeliest] == head.tolist()
        scores = {}
        for where, continuation in alike:
            token = torch.tensor([int(continuation[-1])], device=driver.device)
            ends, best = _read_off(rows[-1:], token)
            scores[where] = Score(
                logprob=math.fsum([*logprobs, *ends]),
                token_logprobs=(*logprobs, *ends),
                likeliest=(*likeliest, *best),
                is_greedy=is_greedy and best[0][0] == int(continuation[-1]),
            )
        return scores


def _alike_but_for_the_last(continuations: _Alike) -> list[_Alike]:
    """Return continuations in groups that one run serves: letters after a space, say."""
    found: dict[bytes, _Alike] = {}
    for where, continuation in continuations:
        found.setdefault(continuation[:-1].tobytes(), []).append((where, continuation))
    return list(found.values())


def _read_off(logits: torch.Tensor, tokens: torch.Tensor) -> tuple[list[float], list[tuple[int, float]]]:
    """Return the log-probabilities of ``tokens`` by as many rows of ``logits``, and the likeliest of each row
    with its own.
    """
    logprobs = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
    best, places = logprobs.max(dim=-1)
    likeliest = list(zip(places.tolist(), best.tolist(), strict=True))
    return logprobs.gather(-1, tokens[:, None])[:, 0].tolist(), likeliest
