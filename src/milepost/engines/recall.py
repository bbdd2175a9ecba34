"""What one engine's cache holds for a prompt of the model as it is now, and nothing that another model made.

Prompts of different identities of a model (see ``transformers/watch``) share nothing, as those of different
tenants do, so an adapter that is switched back finds its own states again. States of weights that are gone
are dropped at once. A payload's digest says the same a second time: whose it is, for which model, for which
tokens.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from milepost.accounting import RequestReport
from milepost.engines.audit import Auditor, Recomputation
from milepost.engines.base import Admission, Driver, Identity, LiveSequence
from milepost.engines.claim import Claim
from milepost.engines.cuts import Cuts
from milepost.engines.keeping import AnyCache, Keeping
from milepost.engines.payloads import SequencePayloads, belongs_to
from milepost.engines.prefill import Prefill
from milepost.errors import AuditError
from milepost.lease import Lease
from milepost.pins import Pin
from milepost.placement import NoCheckpoints, Placement
from milepost.tokens import TokenArray

__all__ = ["Recall"]

_log = logging.getLogger(__name__)


class Recall:
    """See the module.

    Args:
        keeping: The engine's own cache.
        admission: Of the model, shared by all engines over it.
        driver: Of the model.
        auditor: Draws the hits that are computed again.
        fingerprint: What makes states of the model as it was opened interchangeable.
        segment_tokens: Where KV is cut.
        cuts: Where a prompt is.
    """

    def __init__(
        self,
        *,
        keeping: Keeping,
        admission: Admission,
        driver: Driver,
        auditor: Auditor,
        fingerprint: bytes,
        segment_tokens: int,
        cuts: Cuts,
    ) -> None:
        self.keeping = keeping
        self.cache: AnyCache = keeping.cache
        self.admission = admission
        self.auditor = auditor
        self._driver = driver
        self._fingerprint = fingerprint
        self._segment_tokens = segment_tokens
        self._cuts = cuts
        self._lasting = keeping.lasting
        self._content: int | None = None
        self._opened_content: int | None = None

    def claim(
        self,
        tokens: TokenArray,
        *,
        tenant: str,
        breakpoints: Sequence[int] = (),
        pins: Sequence[Pin] = (),
        sequence_tokens: int | None = None,
    ) -> Claim:
        """Look at the model, and return what a prompt may resume from.

        Args:
            tokens: The prompt.
            tenant: Who asks.
            breakpoints: Hints for the policy.
            pins: What the client asks to have kept.
            sequence_tokens: Length of what it is the beginning of; its own unless given.

        Raises:
            ConfigurationError: the model is in training mode.
            UnsupportedModelError: as it is by now it cannot be run, or not be resumed exactly.
        """
        identity = self.admission.identify()
        lasting = self._lasting if self.admission.is_as_opened(identity) else None
        if lasting is not None:
            self._opened_content = identity.content
        if identity.content != self._content:
            self._content = identity.content
            num_dropped = self.cache.forget_tenants(lambda name: self._is_gone(name, identity))
            if num_dropped:
                _log.info("%d states of weights that are gone were dropped", num_dropped)
        # Prompts whose positions mean something else share nothing either.
        rotated_for = self._driver.frequency_length(sequence_tokens or tokens.size)
        if lasting is None:
            namespace = f"{identity.tenant(str(rotated_for))}:{tenant}"
            fingerprint = self._fingerprint + identity.digest
        else:
            namespace = lasting.namespace(tenant, rotated_for=rotated_for)
            fingerprint = lasting.fingerprint
        return Claim(
            identity=identity,
            tokens=tokens,
            tenant=tenant,
            namespace=namespace,
            fingerprint=fingerprint + rotated_for.to_bytes(8, "little"),
            segment_tokens=self._segment_tokens,
            breakpoints=tuple(breakpoints),
            pins=tuple(pins),
        )

    def _is_gone(self, namespace: str, identity: Identity) -> bool:
        """Return whether what ``namespace`` has can never be asked for again in this process."""
        if self._lasting is not None and self._lasting.names(namespace):
            return identity.content != self._opened_content
        return not identity.has_content_of(namespace)

    @property
    def may_place(self) -> bool:
        """Whether the policy keeps checkpoints at all."""
        return not isinstance(self.cache.policy.placement, NoCheckpoints)

    def reach(self, claim: Claim) -> int:
        """Return where a prompt would resume now."""
        with self.acquire(claim) as lease:
            return lease.resume_position

    def acquire(self, claim: Claim) -> Lease:
        """Pin the deepest checkpoint that was made for exactly this claim."""
        # What is left to compute may not be less than the engine computes exactly.
        furthest = max(0, claim.tokens.size - self._cuts.least)
        resume_limit = furthest if self.admission.can_store(claim.identity) else 0
        while True:
            lease = self.cache.acquire(
                claim.tokens,
                tenant=claim.namespace,
                breakpoints=claim.breakpoints,
                resume_limit=resume_limit,
                pins=claim.pins,
            )
            try:
                if belongs_to(lease, claim.digests()):
                    return lease
                # Never the same again: what others hold pinned cannot be dropped.
                resume_limit = lease.resume_position - 1
                lease.discard()
            except BaseException:
                lease.release()
                raise

    def plan(self, claim: Claim, lease: Lease, *, given_positions: Sequence[int] = ()) -> tuple[int, ...]:
        """Return where states of this prompt should be captured, or how much of its KV is wanted.

        Args:
            claim: Whose prompt it is.
            lease: What it resumes from.
            given_positions: Where requests that wait part from it: a state there is used at once.
        """
        if not self.admission.can_store(claim.identity):
            return ()
        if not self.may_place or self.cache.footprint.is_stateless:
            given_positions = ()
        return self.cache.plan(lease, given_positions=given_positions).positions

    def store(
        self,
        claim: Claim,
        lease: Lease,
        placement: Placement,
        payloads: SequencePayloads,
        *,
        kv_tokens: int | None = None,
    ) -> RequestReport:
        """Store what was captured of a prompt, and account for it.

        Args:
            claim: Whose prompt it is.
            lease: What it resumed from.
            placement: Where states were captured.
            payloads: Hands them out.
            kv_tokens: Tokens whose KV there is; all of the prompt unless given.

        Raises:
            ModelChangedError: the model is another one by now; nothing was stored.
        """
        if placement.positions or self.cache.policy.keeps_kv:
            self.admission.require(claim.identity, closely=True)
        source = payloads if self.admission.can_store(claim.identity) else None
        return self.cache.commit(lease, placement, source, kv_tokens=kv_tokens)

    def keep_answer(self, claim: Claim, lease: Lease, live: LiveSequence, answer: Sequence[int]) -> int:
        """Store a state at the end of an answer: the next turn of a chat goes on there. Return its position,
        0 for none, as where the policy keeps no states.

        Args:
            claim: Whose prompt it was.
            lease: The prompt's, committed.
            live: Has computed the prompt and all of the answer that is given.
            answer: Its tokens; the last was not computed where nothing came after it.
        """
        if live.position % self.cache.grid or not self._can_keep(claim):
            return 0
        tokens = np.concatenate((claim.tokens, np.asarray(answer, dtype=claim.tokens.dtype)))[: live.position]
        payloads = self._payloads(claim, tokens, live)
        payloads.capture()
        return self.cache.extend(lease, tokens, payloads, unasked=True)

    def keep_begun(self, claim: Claim, prefill: Prefill) -> int:
        """Store what was captured of a prompt that was given up, as a prompt that ends there; return where.

        Complexity: as of a prompt of that length.
        """
        positions = prefill.payloads.positions
        if not positions or not self._can_keep(claim):
            return 0
        tokens = claim.tokens[: positions[-1]]
        with self.cache.acquire(tokens, tenant=claim.namespace, breakpoints=()) as lease:
            left = tuple(position for position in positions if position > lease.resume_position)
            self.store(claim, lease, Placement(left), prefill.payloads)
        return positions[-1]

    def _can_keep(self, claim: Claim) -> bool:
        return self.may_place and self.admission.can_store(claim.identity)

    def _payloads(self, claim: Claim, tokens: TokenArray, live: LiveSequence) -> SequencePayloads:
        digests = replace(claim, tokens=tokens).digests()
        return SequencePayloads(self._driver, live, digests=digests, segment_tokens=self._segment_tokens)

    def audit(self, lease: Lease, claim: Claim) -> Recomputation | None:
        """Return the check of what ``lease`` resumes from, where one is due."""
        if lease.resume_position == 0 or not self.auditor.is_due():
            return None
        return Recomputation(
            lease,
            driver=self._driver,
            cache=self.cache,
            tenant=claim.namespace,
            digests=claim.digests(),
            segment_tokens=self._segment_tokens,
            cuts=self._cuts,
        )

    def judge(self, audit: Recomputation, lease: Lease) -> bool:
        """Count a check that is done and return whether ``lease`` may be resumed from. If not, everything
        stored for this model goes.

        Raises:
            AuditError: it may not, and that is to be raised.
        """
        is_wrong = not audit.is_match and audit.is_repeatable
        self.auditor.note(num_tokens=audit.num_tokens, is_match=not is_wrong)
        if not audit.is_repeatable:
            self.auditor.stop()
        if not is_wrong:
            return True
        message = (
            f"the state after {lease.resume_position:,} of {lease.tokens.size:,} tokens is not what the "
            "model computes: its weights were written where no check sees it, such as through .data; all its "
            "states were dropped. Call engine.invalidate() after such writes"
        )
        self.invalidate()
        if self.auditor.audit.on_mismatch == "raise":
            raise AuditError(message)
        _log.error("%s", message)
        return False

    def invalidate(self) -> None:
        """Drop everything that is stored; the model is another one from now on."""
        self.admission.invalidate()
        self.cache.forget_everything()
