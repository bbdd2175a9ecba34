"""One request from its prompt to its last token, one small step at a time, so that many can take turns."""

import time
import traceback
from dataclasses import replace

import torch
import xxhash

from milepost.accounting import RequestReport
from milepost.engines.transformers.audit import Recomputation
from milepost.engines.transformers.completion import Completion, FinishReason, TokenEvent
from milepost.engines.transformers.driver import Driver
from milepost.engines.transformers.ownership import Ownership
from milepost.engines.transformers.prefill import Numerics, Prefill
from milepost.engines.transformers.recall import Claim, Recall
from milepost.engines.transformers.requests import GenerationRequest
from milepost.engines.transformers.sampling import Sampler, TokenLogprobs
from milepost.engines.transformers.text import TextStream, Tokenizer
from milepost.errors import InvalidRequestError
from milepost.interrupts import deferred_interrupts
from milepost.lease import Lease
from milepost.placement import Placement

__all__ = ["Generation"]


class Generation:
    """The state machine of one request: waiting, prefill (a segment a step), decode (a token a step), done.

    It holds a lease from its first step until its prompt is stored; :meth:`close` lets go at any time.

    Attributes:
        events: All that it has produced so far, in whichever turn.
        error: What broke this request, or None; :meth:`completion` raises it. It is nobody else's: the turn
            in which it happened returns as usual.
        is_abandoned: Whether nobody listens any more; the round of turns closes it then.
    """

    def __init__(
        self,
        request: GenerationRequest,
        *,
        driver: Driver,
        recall: Recall,
        ownership: Ownership,
        tokenizer: Tokenizer | None,
        segment_tokens: int,
        numerics: Numerics,
    ) -> None:
        self.request = request
        self._driver = driver
        self._recall = recall
        self._ownership = ownership
        self._segment_tokens = segment_tokens
        self._numerics = numerics
        self._sampler = Sampler(request.sampling, prompt=request.tokens, device=driver.model.device)
        self._stream = None if tokenizer is None else TextStream(tokenizer, request.stop)
        self.events: list[TokenEvent] = []
        self.error: Exception | None = None
        self.is_abandoned = False
        self._claim: Claim | None = None
        self._lease: Lease | None = None
        self._audit: Recomputation | None = None
        self._placement = Placement(())
        self._prefill: Prefill | None = None
        self._tokens: list[int] = []
        self._logprobs: list[TokenLogprobs] = []
        self._text: list[str] = []
        self._report: RequestReport | None = None
        self._finish_reason: FinishReason | None = None
        self._captured_positions: tuple[int, ...] = ()
        self._logits_digest = ""
        self._started = self._first_token = self._prefill_seconds = self._capture_seconds = 0.0
        self._finished = 0.0
        self.is_closed = False

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to do."""
        return self.is_closed or self.is_abandoned or self._finish_reason is not None

    @property
    def num_prompt_tokens_done(self) -> int:
        """Prompt tokens reused or computed so far."""
        if self._report is not None:
            return self._report.num_tokens
        return 0 if self._prefill is None else self._prefill.live.position

    def step(self) -> list[TokenEvent]:
        """Do the next piece of work and return the tokens it produced (none, one, or one with trailing text).

        Whatever goes wrong, the lease is released and the cache is whole. An exception becomes this request's
        ``error``; only what is not for it (an interrupt) is raised.
        """
        if self.is_done:
            return []
        try:
            events = self._step()
        except Exception as error:
            self.close()
            _forget_locals(error)
            self.error = error
            return []
        except BaseException:
            self.close()
            raise
        self.events += events
        return events

    def abandon(self) -> None:
        """Say that nobody listens any more. Touches nothing else, so a garbage collector may call it at any
        time, in the middle of a change of the cache too.
        """
        self.is_abandoned = True

    def close(self) -> None:
        """Give up: release what is pinned and store nothing more. Harmless when done.

        Raises:
            ConcurrentUseError: another thread is at work on the model; :meth:`abandon` may be called then.
        """
        with self._ownership.call("Generation.close"), deferred_interrupts():
            self.is_closed = True
            if self._audit is not None:
                self._audit.close()
            self._release_lease()
            self._prefill = None

    def completion(self) -> Completion:
        """Return the answer of a request that is done.

        Raises:
            InvalidRequestError: it is not done yet, or was given up.
            Exception: what broke it, whatever that was.
        """
        if self.error is not None:
            raise self.error
        if self._finish_reason is None or self._report is None:
            state = "was given up" if self.is_done else "is not done yet"
            raise InvalidRequestError(f"the request {state}, so it has no answer")
        return Completion(
            tokens=tuple(self._tokens),
            text="".join(self._text),
            finish_reason=self._finish_reason,
            is_cut_by_context=self._finish_reason == "length" and self.request.is_cut_by_context,
            logprobs=None if self.request.sampling.num_logprobs is None else tuple(self._logprobs),
            report=self._report,
            captured_positions=self._captured_positions,
            prompt_logits_digest=self._logits_digest,
            ttft_seconds=self._first_token - self._started,
            prefill_seconds=self._prefill_seconds,
            capture_seconds=self._capture_seconds,
            decode_seconds=self._finished - self._first_token,
        )

    def _step(self) -> list[TokenEvent]:
        if self._claim is None:
            self._started = time.perf_counter()
            self._begin()
            assert self._claim is not None
        else:
            self._recall.admission.require(self._claim.identity)
        if self._audit is not None:
            self._step_audit(self._audit)
            return []
        if self._prefill is None:
            self._prefill = self._begin_prefill()
        if not self._prefill.is_done:
            started = time.perf_counter()
            self._prefill.step()
            if self._prefill.is_done:
                self._driver.wait_for_device()
            self._prefill_seconds += time.perf_counter() - started
            if not self._prefill.is_done:
                return []
            self._store()
            assert self._prefill.logits is not None
            self._logits_digest = _digest(self._prefill.logits)
        else:
            self._prefill.logits = self._prefill.advance(self._tokens)
        assert self._prefill.logits is not None
        events = self._accept(*self._sampler.draw(self._prefill.logits))
        self._finished = time.perf_counter()
        self._first_token = self._first_token or self._finished
        if self._finish_reason is not None:
            if len(self._tokens) > 1:
                # Nobody had a turn in between, but another thread may have trained the model.
                self._recall.admission.require(self._claim.identity, closely=True)
            self._prefill = None
        return events

    def _begin(self) -> None:
        """Look at the model, and pin what this prompt can resume from."""
        request = self.request
        self._claim = self._recall.claim(
            request.tokens, tenant=request.tenant, breakpoints=request.breakpoints
        )
        with deferred_interrupts():
            self._lease = self._recall.acquire(self._claim)
            self._audit = self._recall.audit(self._lease, self._claim)

    def _step_audit(self, audit: Recomputation) -> None:
        """Check what is pinned for a segment; where it proves wrong, begin again without it."""
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
        if self._recall.admission.can_store(self._claim.identity):
            self._placement = self._recall.cache.plan(self._lease)
        # Without states the plan says how much KV to keep, and there is nothing to capture.
        captured = Placement(()) if self._recall.cache.footprint.is_stateless else self._placement
        return Prefill(
            driver=self._driver,
            lease=self._lease,
            placement=captured,
            digests=self._claim.digests(),
            segment_tokens=self._segment_tokens,
            numerics=self._numerics,
        )

    def _store(self) -> None:
        """Hand the prompt's checkpoints to the cache; from here on nothing needs to stay pinned."""
        assert self._claim is not None
        assert self._prefill is not None
        assert self._lease is not None
        self._captured_positions = self._prefill.placement.positions
        started = time.perf_counter()
        cache, admission = self._recall.cache, self._recall.admission
        if self._placement.positions or cache.policy.keeps_kv:
            admission.require(self._claim.identity, closely=True)
        source = self._prefill if admission.can_store(self._claim.identity) else None
        with deferred_interrupts():
            self._report = cache.commit(self._lease, self._placement, source)
            self._release_lease()
        # From here on the cache decides what stays in memory.
        self._prefill.drop_captured()
        self._driver.wait_for_device()
        spent = time.perf_counter() - started
        self._prefill_seconds += spent
        self._capture_seconds = self._prefill.capture_seconds + spent

    def _release_lease(self) -> None:
        if self._lease is not None:
            self._lease.release()
            self._lease = None

    def _accept(self, token: int, logprobs: TokenLogprobs | None) -> list[TokenEvent]:
        if token in self.request.end_tokens:
            self._finish_reason = "stop"
            return self._flush(None)
        self._tokens.append(token)
        if logprobs is not None:
            self._logprobs.append(logprobs)
        text = "" if self._stream is None else self._stream.push(token)
        self._text.append(text)
        if self._stream is not None and self._stream.stopped:
            self._finish_reason = "stop"
        elif len(self._tokens) >= self.request.max_new_tokens:
            events = self._flush(TokenEvent(token, text, logprobs))
            self._finish_reason = "stop" if self._stream is not None and self._stream.stopped else "length"
            return events
        return [TokenEvent(token, text, logprobs)]

    def _flush(self, event: TokenEvent | None) -> list[TokenEvent]:
        """Add the text that was held back to the last event."""
        rest = "" if self._stream is None else self._stream.finish()
        self._text.append(rest)
        if event is not None:
            return [replace(event, text=event.text + rest)]
        return [TokenEvent(None, rest)] if rest else []


def _forget_locals(error: BaseException | None) -> None:
    """Empty the frames of a traceback that is kept: a live cache would live on in them."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _digest(logits: torch.Tensor) -> str:
    return xxhash.xxh3_128_hexdigest(logits.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
