"""One request from its prompt to its last token, one small step at a time, so that many can take turns."""

import time
import traceback
from collections.abc import Callable

import torch
import xxhash

from milepost.engines.answer import Answer
from milepost.engines.base import LiveSequence, Rows
from milepost.engines.completion import Completion, TokenEvent
from milepost.engines.prefill import Prefill
from milepost.engines.prompt_run import PromptRun
from milepost.engines.recall import Recall
from milepost.engines.requests import GenerationRequest
from milepost.engines.sampling import Sampler
from milepost.engines.served_model import ServedModel
from milepost.errors import InvalidRequestError
from milepost.interrupts import deferred_interrupts

__all__ = ["Generation"]


class Generation:
    """The state machine of one request: waiting, prefill (a piece a step), decode (a token a step), done.

    It holds a lease from its first step until its prompt is stored; :meth:`close` lets go at any time.

    Attributes:
        events: All that it has produced so far, in whichever turn.
        error: What broke this request, or None; :meth:`completion` raises it. It is nobody else's: the turn
            in which it happened returns as usual.
        is_abandoned: Whether nobody listens any more; the round of turns closes it then.
        prompt: The way to its first token.
    """

    def __init__(
        self, request: GenerationRequest, *, served: ServedModel, recall: Recall, rows: Rows
    ) -> None:
        self.request = request
        self.events: list[TokenEvent] = []
        self.error: Exception | None = None
        self.is_abandoned = self.is_closed = False
        self._served, self._recall, self._rows = served, recall, rows
        self._sampler = Sampler(request.sampling, prompt=request.tokens, device=served.driver.device)
        self._answer = Answer(request, served.tokenizer)
        self.prompt = PromptRun(
            request.tokens,
            tenant=request.tenant,
            breakpoints=request.breakpoints,
            pins=request.pins,
            served=served,
            recall=recall,
        )
        self._logits_digest = ""
        self._started = self._first_token = self._finished = 0.0

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to do."""
        return self.is_closed or self.is_abandoned or self._answer.finish_reason is not None

    @property
    def has_begun(self) -> bool:
        """Whether it was given a turn."""
        return self.prompt.claim is not None

    @property
    def is_decoding(self) -> bool:
        """Whether its prompt is computed, and its answer waits for the next token."""
        return not self.is_done and bool(self._answer.tokens)

    @property
    def prefill(self) -> Prefill | None:
        """The prompt's computation while it is under way."""
        return None if self.prompt.is_done else self.prompt.prefill

    @property
    def num_prompt_tokens_done(self) -> int:
        """Prompt tokens reused or computed so far."""
        if self.prompt.report is not None:
            return self.prompt.report.num_tokens
        return 0 if self.prompt.prefill is None else self.prompt.live.position

    def step(self) -> list[TokenEvent]:
        """Do the next piece of work up to the answer's first token, and return what it produced: nothing, one
        token, or one with trailing text.

        Whatever goes wrong, the lease is released and the cache is whole. An exception becomes this request's
        ``error``; only what is not for it (an interrupt) is raised.
        """
        return self._guarded(self._step_prompt)

    def decode_with(self, logits: torch.Tensor) -> list[TokenEvent]:
        """Take in the logits after the last token, and return what they produced."""
        return self._guarded(lambda: self._take_in(logits))

    def start_over(self) -> list[TokenEvent]:
        """Compute all tokens so far anew, where the next one changes the positions of all before it."""
        return self._guarded(self._compute_anew)

    def is_served(self) -> bool:
        """Whether the model is still the one that this was begun with; if not, that is its error."""
        self._guarded(self._require_model)
        return not self.is_done

    def fail(self, error: Exception) -> None:
        """End with an error."""
        self._close(keeps=False)
        _forget_locals(error)
        self.error = error

    def abandon(self) -> None:
        """Say that nobody listens any more. Touches nothing else, so a garbage collector may call it at any
        time, in the middle of a change of the cache too.
        """
        self.is_abandoned = True

    def close(self) -> None:
        """Give up: release what is pinned, and leave to the cache what was captured of the prompt so far.
        Harmless when done.

        Raises:
            ConcurrentUseError: another thread is at work on the model; :meth:`abandon` may be called then.
        """
        self._close(keeps=True)

    def _close(self, *, keeps: bool) -> None:
        with self._served.ownership.call("Generation.close"), deferred_interrupts():
            self.is_closed = True
            self._let_go(keeps=keeps)

    @property
    def pending(self) -> tuple[LiveSequence, int]:
        """What has been computed, and the token that comes after it."""
        return self.prompt.live, self._answer.tokens[-1]

    @property
    def must_start_over(self) -> bool:
        """Whether the next token changes the positions of all before it (see :meth:`start_over`)."""
        return self._served.driver.must_start_over(self.pending[0])

    def completion(self) -> Completion:
        """Return the answer of a request that is done.

        Raises:
            InvalidRequestError: it is not done yet, or was given up.
            Exception: what broke it, whatever that was.
        """
        if self.error is not None:
            raise self.error
        answer = self._answer
        if answer.finish_reason is None or self.prompt.report is None:
            state = "was given up" if self.is_done else "is not done yet"
            raise InvalidRequestError(f"the request {state}, so it has no answer")
        return Completion(
            tokens=tuple(answer.tokens),
            text=answer.text,
            finish_reason=answer.finish_reason,
            is_cut_by_context=answer.finish_reason == "length" and self.request.is_cut_by_context,
            logprobs=None if self.request.sampling.num_logprobs is None else tuple(answer.logprobs),
            report=self.prompt.report,
            reused_by_tier=self.prompt.reused_by_tier,
            captured_positions=self.prompt.captured_positions,
            prompt_logits_digest=self._logits_digest,
            ttft_seconds=self._first_token - self._started,
            prefill_seconds=self.prompt.prefill_seconds,
            capture_seconds=self.prompt.capture_seconds,
            decode_seconds=self._finished - self._first_token,
        )

    def _guarded(self, work: Callable[[], list[TokenEvent]]) -> list[TokenEvent]:
        if self.is_done:
            return []
        try:
            events = work()
        except Exception as error:
            self.fail(error)
            return []
        except BaseException:
            self._close(keeps=False)
            raise
        self.events += events
        return events

    def _require_model(self) -> list[TokenEvent]:
        self.prompt.require_model()
        return []

    def _step_prompt(self) -> list[TokenEvent]:
        if not self.has_begun:
            self._started = time.perf_counter()
        self.prompt.step()
        if not self.prompt.is_done:
            return []
        self._logits_digest = _digest(self.prompt.logits)
        return self._take_in(self.prompt.logits)

    def _compute_anew(self) -> list[TokenEvent]:
        assert self.prompt.prefill is not None
        self._rows.leave(self.prompt.live, keeps=False)
        return self._take_in(self.prompt.prefill.start_over(self._answer.tokens))

    def _take_in(self, logits: torch.Tensor) -> list[TokenEvent]:
        events = self._answer.accept(*self._sampler.draw(logits))
        self._finished = time.perf_counter()
        self._first_token = self._first_token or self._finished
        if self._answer.finish_reason is not None:
            self._end()
        return events

    def _end(self) -> None:
        """The answer is complete: keep where it ends, for who goes on from there."""
        prompt = self.prompt
        assert prompt.claim is not None
        if len(self._answer.tokens) > 1:
            # Nobody had a turn in between, but another thread may have trained the model.
            prompt.require_model(closely=True)
        keeps = self._served.keeps_answers and prompt.live.position > prompt.tokens.size
        self._rows.leave(prompt.live, keeps=keeps)
        if keeps:
            assert prompt.committed is not None
            with deferred_interrupts():
                self._recall.keep_answer(prompt.claim, prompt.committed, prompt.live, self._answer.tokens)
        self._let_go(keeps=False)

    def _let_go(self, *, keeps: bool) -> None:
        if self.prompt.prefill is not None:
            self._rows.leave(self.prompt.live, keeps=False)
        self.prompt.close(keeps=keeps)


def _forget_locals(error: BaseException | None) -> None:
    """Empty the frames of a traceback that is kept: a live cache would live on in them."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _digest(logits: torch.Tensor) -> str:
    return xxhash.xxh3_128_hexdigest(logits.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
