"""What one engine's cache holds for a prompt of the model as it is now, and nothing that another model made.

Prompts of different identities of a model (see ``transformers/watch``) share nothing, as those of different
tenants do, so an adapter that is switched back finds its own states again. States of weights that are gone
are dropped at once. A payload's digest says the same a second time: whose it is, for which model, for which
tokens.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from milepost.accounting import RequestReport
from milepost.engines.audit import Auditor, Recomputation
from milepost.engines.base import Admission, Cuts, Driver, Identity, LiveSequence
from milepost.engines.digests import PrefixDigests
from milepost.engines.payloads import SequencePayloads, belongs_to
from milepost.engines.prefill import Prefill
from milepost.errors import AuditError
from milepost.hosted_cache import HostedCache
from milepost.lease import Lease
from milepost.placement import NoCheckpoints, Placement
from milepost.tokens import TokenArray

__all__ = ["Claim", "Recall"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Whose states a prompt may resume from.

    Attributes:
        identity: The model's when the request began.
        tokens: The prompt.
        tenant: Who asks, as the request says.
        namespace: Who asks, to the cache: the tenant under this identity.
        fingerprint: What every payload's digest begins with.
        segment_tokens: See ``PrefixDigests``.
        breakpoints: Hints for the policy.
    """

    identity: Identity
    tokens: TokenArray
    tenant: str
    namespace: str
    fingerprint: bytes
    segment_tokens: int
    breakpoints: tuple[int, ...]

    def digests(self) -> PrefixDigests:
        """Return the digests of the prompt's prefixes, to be asked for in ascending order."""
        return PrefixDigests(
            self.fingerprint, self.tokens, tenant=self.tenant, segment_tokens=self.segment_tokens
        )


class Recall:
    """See the module.

    Args:
        cache: The engine's own.
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
        cache: HostedCache,
        admission: Admission,
        driver: Driver,
        auditor: Auditor,
        fingerprint: bytes,
        segment_tokens: int,
        cuts: Cuts,
    ) -> None:
        self.cache = cache
        self.admission = admission
        self.auditor = auditor
        self._driver = driver
        self._fingerprint = fingerprint
        self._segment_tokens = segment_tokens
        self._cuts = cuts
        self._content: int | None = None

    def claim(
        self,
        tokens: TokenArray,
        *,
        tenant: str,
        breakpoints: Sequence[int] = (),
        sequence_tokens: int | None = None,
    ) -> Claim:
        """Look at the model, and return what a prompt may resume from.

        Args:
            tokens: The prompt.
            tenant: Who asks.
            breakpoints: Hints for the policy.
            sequence_tokens: Length of what it is the beginning of; its own unless given.

        Raises:
            ConfigurationError: the model is in training mode.
            UnsupportedModelError: as it is by now it cannot be run, or not be resumed exactly.
        """
        identity = self.admission.identify()
        if identity.content != self._content:
            self._content = identity.content
            num_dropped = self.cache.forget_tenants(lambda name: not identity.has_content_of(name))
            if num_dropped:
                _log.info("%d states of weights that are gone were dropped", num_dropped)
        # Prompts whose positions mean something else share nothing either.
        rotated_for = self._driver.frequency_length(sequence_tokens or tokens.size)
        return Claim(
            identity=identity,
            tokens=tokens,
            tenant=tenant,
            namespace=f"{identity.tenant(str(rotated_for))}:{tenant}",
            fingerprint=self._fingerprint + identity.digest + rotated_for.to_bytes(8, "little"),
            segment_tokens=self._segment_tokens,
            breakpoints=tuple(breakpoints),
        )

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
        self.cache.forget_tenants(lambda name: True)
