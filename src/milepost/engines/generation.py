"""One request from its prompt to its last token, one small step at a time, so that many can take turns."""

import logging
import time
import traceback
from collections.abc import Callable

import torch
import xxhash

from milepost.accounting import RequestReport
from milepost.engines.answer import Answer
from milepost.engines.audit import Recomputation
from milepost.engines.base import LiveSequence, Rows
from milepost.engines.completion import Completion, TokenEvent
from milepost.engines.prefill import Prefill
from milepost.engines.recall import Claim, Recall
from milepost.engines.requests import GenerationRequest
from milepost.engines.sampling import Sampler
from milepost.engines.served_model import ServedModel
from milepost.errors import InvalidRequestError, MilepostError
from milepost.interrupts import deferred_interrupts
from milepost.lease import Lease
from milepost.placement import Placement

__all__ = ["Generation"]

_log = logging.getLogger(__name__)


class Generation:
    """The state machine of one request: waiting, prefill (a piece a step), decode (a token a step), done.

    It holds a lease from its first step until its prompt is stored; :meth:`close` lets go at any time.

    Attributes:
        events: All that it has produced so far, whoever's turn it was.
        error: What broke this request, or None; :meth:`completion` raises it. It is nobody else's: the turn
            in which it happened returns as usual.
        is_abandoned: Whether nobody listens any more; whoever gives out the turns closes it then.
        parting_positions: Where requests that wait part from this one, ascending; heeded when it begins.
    """

    def __init__(
        self, request: GenerationRequest, *, served: ServedModel, recall: Recall, rows: Rows
    ) -> None:
        self.request = request
        self.events: list[TokenEvent] = []
        self.error: Exception | None = None
        self.is_abandoned = self.is_closed = False
        self.parting_positions: tuple[int, ...] = ()
        self._served, self._recall, self._rows = served, recall, rows
        self._sampler = Sampler(request.sampling, prompt=request.tokens, device=served.driver.device)
        self._answer = Answer(request, served.tokenizer)
        self._claim: Claim | None = None
        self._kept_kv: tuple[int, ...] = ()
        self._lease: Lease | None = None
        self._committed: Lease | None = None
        self._audit: Recomputation | None = None
        self._prefill: Prefill | None = None
        self._report: RequestReport | None = None
        self._captured_positions: tuple[int, ...] = ()
        self._logits_digest = ""
        self._started = self._first_token = self._prefill_seconds = self._capture_seconds = 0.0
        self._finished = 0.0

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to do."""
        return self.is_closed or self.is_abandoned or self._answer.finish_reason is not None

    @property
    def has_begun(self) -> bool:
        """Whether it was given a turn."""
        return self._claim is not None

    @property
    def is_decoding(self) -> bool:
        """Whether its prompt is computed, and its answer waits for the next token."""
        return not self.is_done and bool(self._answer.tokens)

    @property
    def prefill(self) -> Prefill | None:
        """The prompt's computation while it is under way."""
        return self._prefill if self._report is None else None

    @property
    def num_prompt_tokens_done(self) -> int:
        """Prompt tokens reused or computed so far."""
        if self._report is not None:
            return self._report.num_tokens
        return 0 if self._prefill is None else self._prefill.live.position

    def step(self) -> list[TokenEvent]:
        """Do the next piece of work up to the answer's first token, and return what it produced: nothing, one
        token, or one with trailing text.

        Whatever goes wrong, the lease is released and the cache is whole. An exception becomes this request's
        ``error``; only what is not for it (an interrupt) is raised.
        """
        return self._guarded(self._step_prompt)

    def decode_with(self, logits: torch.Tensor) -> list[TokenEvent]:
        """Take in the logits behind the last token, and return what they produced."""
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
            if self._audit is not None:
                self._audit.close()
            try:
                if keeps and self._claim is not None and self.prefill is not None:
                    self._recall.keep_begun(self._claim, self.prefill)
            except MilepostError as error:
                _log.info("what was captured of a prompt that was given up is not kept: %s", error)
            finally:
                self._release_lease()
                self._let_go()

    @property
    def pending(self) -> tuple[LiveSequence, int]:
        """What has been computed, and the token that comes after it."""
        assert self._prefill is not None
        return self._prefill.live, self._answer.tokens[-1]

    @property
    def must_start_over(self) -> bool:
        """Whether the next token changes the positions of all before it (see :meth:`start_over`)."""
        return self._served.driver.must_start_over(self.pending[0])

    def new_claim(self) -> Claim:
        """Look at the model, and return what this prompt may resume from now."""
        request = self.request
        return self._recall.claim(request.tokens, tenant=request.tenant, breakpoints=request.breakpoints)

    def completion(self) -> Completion:
        """Return the answer of a request that is done.

        Raises:
            InvalidRequestError: it is not done yet, or was given up.
            Exception: what broke it, whatever that was.
        """
        if self.error is not None:
            raise self.error
        answer = self._answer
        if answer.finish_reason is None or self._report is None:
            state = "was given up" if self.is_done else "is not done yet"
            raise InvalidRequestError(f"the request {state}, so it has no answer")
        return Completion(
            tokens=tuple(answer.tokens),
            text=answer.text,
            finish_reason=answer.finish_reason,
            is_cut_by_context=answer.finish_reason == "length" and self.request.is_cut_by_context,
            logprobs=None if self.request.sampling.num_logprobs is None else tuple(answer.logprobs),
            report=self._report,
            captured_positions=self._captured_positions,
            prompt_logits_digest=self._logits_digest,
            ttft_seconds=self._first_token - self._started,
            prefill_seconds=self._prefill_seconds,
            capture_seconds=self._capture_seconds,
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
        assert self._claim is not None
        self._served.admission.require(self._claim.identity)
        return []

    def _step_prompt(self) -> list[TokenEvent]:
        if self._claim is None:
            self._started = time.perf_counter()
            self._begin()
        else:
            self._require_model()
        if self._audit is not None:
            self._step_audit(self._audit)
            return []
        if self._prefill is None:
            self._prefill = self._begin_prefill()
        started = time.perf_counter()
        self._prefill.step()
        if self._prefill.is_done:
            self._served.driver.wait_for_device()
        self._prefill_seconds += time.perf_counter() - started
        if not self._prefill.is_done:
            return []
        self._store()
        assert self._prefill.logits is not None
        self._logits_digest = _digest(self._prefill.logits)
        return self._take_in(self._prefill.logits)

    def _compute_anew(self) -> list[TokenEvent]:
        assert self._prefill is not None
        self._rows.leave(self._prefill.live, keeps=False)
        return self._take_in(self._prefill.start_over(self._answer.tokens))

    def _take_in(self, logits: torch.Tensor) -> list[TokenEvent]:
        events = self._answer.accept(*self._sampler.draw(logits))
        self._finished = time.perf_counter()
        self._first_token = self._first_token or self._finished
        if self._answer.finish_reason is not None:
            self._end()
        return events

    def _end(self) -> None:
        """The answer is complete: keep where it ends, for who goes on from there."""
        assert self._claim is not None
        assert self._prefill is not None
        if len(self._answer.tokens) > 1:
            # Nobody had a turn in between, but another thread may have trained the model.
            self._served.admission.require(self._claim.identity, closely=True)
        live = self._prefill.live
        keeps = self._served.keeps_answers and live.position > self.request.tokens.size
        self._rows.leave(live, keeps=keeps)
        if keeps:
            assert self._committed is not None
            with deferred_interrupts():
                self._recall.keep_answer(self._claim, self._committed, live, self._answer.tokens)
        self._let_go()

    def _let_go(self) -> None:
        if self._prefill is not None:
            self._rows.leave(self._prefill.live, keeps=False)
            self._prefill.close()
            self._prefill = None

    def _begin(self) -> None:
        """Look at the model, and pin what this prompt can resume from."""
        self._claim = self.new_claim()
        with deferred_interrupts():
            self._lease = self._recall.acquire(self._claim)
            self._audit = self._recall.audit(self._lease, self._claim)

    def _step_audit(self, audit: Recomputation) -> None:
        """Check what is pinned for a piece; where it proves wrong, begin again without it."""
        assert self._lease is not None
        started = time.perf_counter()
        audit.step()
        self._prefill_seconds += time.perf_counter() - started
        if not audit.is_done:
            return
        audit.close()
        self._audit = None
        if not self._recall.judge(audit, self._lease):
            with deferred_interrupts():
                self._release_lease()
            self._begin()

    def _begin_prefill(self) -> Prefill:
        assert self._claim is not None
        assert self._lease is not None
        ahead = [each for each in self.parting_positions if each > self._lease.resume_position]
        planned = self._recall.plan(self._claim, self._lease, given_positions=ahead)
        # Without states the plan says how much KV to keep, and there is nothing to capture.
        self._kept_kv = planned if self._served.footprint.is_stateless else ()
        return Prefill(
            driver=self._served.driver,
            lease=self._lease,
            planned=() if self._served.footprint.is_stateless else planned,
            digests=self._claim.digests(),
            segment_tokens=self._served.segment_tokens,
            cuts=self._served.cuts,
        )

    def _store(self) -> None:
        """Hand the prompt's checkpoints to the cache; from here on nothing needs to stay pinned."""
        assert self._claim is not None
        assert self._prefill is not None
        assert self._lease is not None
        payloads = self._prefill.payloads
        self._captured_positions = payloads.positions
        started = time.perf_counter()
        placement = Placement(self._kept_kv or payloads.positions)
        with deferred_interrupts():
            self._report = self._recall.store(self._claim, self._lease, placement, payloads)
            self._committed = self._lease
            self._release_lease()
        # From here on the cache decides what stays in memory.
        payloads.drop()
        self._served.driver.wait_for_device()
        spent = time.perf_counter() - started
        self._prefill_seconds += spent
        self._capture_seconds = self._prefill.capture_seconds + spent

    def _release_lease(self) -> None:
        if self._lease is not None:
            self._lease.release()
            self._lease = None


def _forget_locals(error: BaseException | None) -> None:
    """Empty the frames of a traceback that is kept: a live cache would live on in them."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _digest(logits: torch.Tensor) -> str:
    return xxhash.xxh3_128_hexdigest(logits.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
