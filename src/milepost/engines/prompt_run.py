"""One prompt on its way: what it resumes from is pinned, the rest computed, what was captured on it stored.

Whatever comes after a prompt (an answer, continuations to score, a loop of somebody else's) begins like this.
"""

import logging
import time

import torch

from milepost.accounting import RequestReport
from milepost.engines.audit import Recomputation
from milepost.engines.base import LiveSequence
from milepost.engines.claim import Claim
from milepost.engines.cuts import Cuts
from milepost.engines.prefill import Prefill
from milepost.engines.recall import Recall
from milepost.engines.served_model import ServedModel
from milepost.errors import MilepostError
from milepost.interrupts import deferred_interrupts
from milepost.lease import Lease
from milepost.pins import Pin
from milepost.placement import Placement
from milepost.tokens import TokenArray

__all__ = ["PromptRun"]

_log = logging.getLogger(__name__)


class PromptRun:
    """See the module. It holds a lease from its first step until it is stored or closed, and what it has
    computed until it is closed.

    Attributes:
        tokens: The prompt.
        tenant: Whose it is.
        claim: Whose states it may resume from; None before its first step.
        lease: What it resumes from, while that is pinned.
        committed: That lease once the prompt is stored, released.
        prefill: Its computation; None before it began, and once closed.
        report: Where its tokens went; None until it is stored.
        reused_by_tier: Tokens reused, by the tier that had them.
        captured_positions: Where states were captured.
        parting_positions: Where others that are known part from it, ascending; heeded when it begins.
        prefill_seconds: Time spent on it.
        capture_seconds: Of that, on taking and storing states.

    Args:
        tokens: The prompt.
        tenant: Whose it is.
        breakpoints: Hints for the policy.
        pins: What the client asks to have kept.
        sequence_tokens: Length of what it is the beginning of, where that is known and its positions hang on
            it; that of the prompt unless given.
        cuts: Where it may be cut; where any prompt of the model may unless given.
        served: The model.
        recall: What the cache has.
    """

    def __init__(
        self,
        tokens: TokenArray,
        *,
        tenant: str,
        breakpoints: tuple[int, ...] = (),
        pins: tuple[Pin, ...] = (),
        sequence_tokens: int | None = None,
        cuts: Cuts | None = None,
        served: ServedModel,
        recall: Recall,
    ) -> None:
        self.tokens, self.tenant = tokens, tenant
        self.parting_positions: tuple[int, ...] = ()
        self.claim: Claim | None = None
        self.lease: Lease | None = None
        self.committed: Lease | None = None
        self.prefill: Prefill | None = None
        self.report: RequestReport | None = None
        self.reused_by_tier: dict[str, int] = {}
        self.captured_positions: tuple[int, ...] = ()
        self.prefill_seconds = self.capture_seconds = self._computing_seconds = 0.0
        self._breakpoints, self._pins = breakpoints, pins
        self._sequence_tokens = tokens.size if sequence_tokens is None else sequence_tokens
        self._cuts = served.cuts if cuts is None else cuts
        self._served, self._recall = served, recall
        self._audit: Recomputation | None = None
        self._kept_kv: tuple[int, ...] = ()

    @property
    def is_done(self) -> bool:
        """Whether all of it is computed and stored."""
        return self.report is not None

    @property
    def live(self) -> LiveSequence:
        """What has been computed."""
        assert self.prefill is not None
        return self.prefill.live

    @property
    def logits(self) -> torch.Tensor:
        """Logits after the prompt's last token, shape ``[vocabulary_size]``."""
        assert self.prefill is not None
        assert self.prefill.logits is not None
        return self.prefill.logits

    def new_claim(self) -> Claim:
        """Look at the model, and return what this prompt may resume from now."""
        return self._recall.claim(
            self.tokens,
            tenant=self.tenant,
            breakpoints=self._breakpoints,
            pins=self._pins,
            sequence_tokens=self._sequence_tokens,
        )

    def require_model(self, *, closely: bool = False) -> None:
        """Raise ``ModelChangedError`` unless the model is the one that this was begun with."""
        assert self.claim is not None
        self._served.admission.require(self.claim.identity, closely=closely)

    def step(self) -> None:
        """Do the next piece of work: pin and check what is resumed from, or compute up to the next cut, and
        store the prompt after the last one.
        """
        if not self.is_ready():
            return
        assert self.prefill is not None
        started = time.perf_counter()
        self.prefill.step()
        if self.prefill.is_done:
            self._served.driver.wait_for_device()
        spent = time.perf_counter() - started
        self.prefill_seconds += spent
        self._computing_seconds += spent
        if self.prefill.is_done:
            self.store()

    def is_ready(self) -> bool:
        """Do a piece of what comes before the first cut, where there is any left; return whether not."""
        if self.claim is None:
            self._begin()
        else:
            self.require_model()
        if self._audit is not None:
            self._step_audit(self._audit)
            return False
        if self.prefill is None:
            self.prefill = self._begin_prefill()
        return True

    def store(self) -> None:
        """Hand the checkpoints to the cache, of as much as is computed; from here on nothing needs to stay
        pinned.
        """
        assert self.claim is not None
        assert self.prefill is not None
        assert self.lease is not None
        payloads = self.prefill.payloads
        self.captured_positions = payloads.positions
        self._recall.keeping.note_computed(self.lease, self._computing_seconds)
        started = time.perf_counter()
        placement = Placement(self._computed_kv() or payloads.positions)
        with deferred_interrupts():
            self.report = self._recall.store(
                self.claim, self.lease, placement, payloads, kv_tokens=self.live.position
            )
            self.reused_by_tier = self._recall.keeping.reused_by_tier(self.lease)
            self.committed = self.lease
            self._release_lease()
        # From here on the cache decides what stays in memory.
        payloads.drop()
        self._served.driver.wait_for_device()
        spent = time.perf_counter() - started
        self.prefill_seconds += spent
        self.capture_seconds = self.prefill.capture_seconds + spent

    def close(self, *, keeps: bool) -> None:
        """Let go of everything. Harmless when done twice.

        Args:
            keeps: Leave to the cache what was captured so far of a prompt that was not finished.
        """
        with deferred_interrupts():
            if self._audit is not None:
                self._audit.close()
            try:
                if keeps and self.claim is not None and self.prefill is not None and not self.is_done:
                    self._recall.keep_begun(self.claim, self.prefill)
            except MilepostError as error:
                _log.info("what was captured of a prompt that was given up is not kept: %s", error)
            finally:
                self._release_lease()
                if self.prefill is not None:
                    self.prefill.close()
                    self.prefill = None

    def _begin(self) -> None:
        """Look at the model, and pin what this prompt can resume from."""
        self.claim = self.new_claim()
        with deferred_interrupts():
            self.lease = self._recall.acquire(self.claim)
            self._audit = self._recall.audit(self.lease, self.claim)

    def _step_audit(self, audit: Recomputation) -> None:
        """Check what is pinned for a piece; where it proves wrong, begin again without it."""
        assert self.lease is not None
        assert self.claim is not None
        started = time.perf_counter()
        audit.step()
        self.prefill_seconds += time.perf_counter() - started
        if not audit.is_done:
            return
        audit.close()
        self._audit = None
        if not self._recall.judge(audit, self.lease):
            with deferred_interrupts():
                self._release_lease()
            self._begin()

    def _begin_prefill(self) -> Prefill:
        assert self.claim is not None
        assert self.lease is not None
        ahead = [each for each in self.parting_positions if each > self.lease.resume_position]
        planned = self._recall.plan(self.claim, self.lease, given_positions=ahead)
        # Without states the plan says how much KV to keep, and there is nothing to capture.
        self._kept_kv = planned if self._served.footprint.is_stateless else ()
        return Prefill(
            driver=self._served.driver,
            lease=self.lease,
            planned=() if self._served.footprint.is_stateless else planned,
            digests=self.claim.digests(),
            segment_tokens=self._served.segment_tokens,
            cuts=self._cuts,
            sequence_tokens=self._sequence_tokens,
        )

    def _computed_kv(self) -> tuple[int, ...]:
        """Return how much KV is kept of a prompt without states, of what there is."""
        grid = self._recall.cache.grid
        kept = {min(each, self.live.position // grid * grid) for each in self._kept_kv}
        assert self.lease is not None
        return tuple(sorted(each for each in kept if each > self.lease.resume_position))

    def _release_lease(self) -> None:
        if self.lease is not None:
            self.lease.release()
            self.lease = None
