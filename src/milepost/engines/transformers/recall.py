"""What one engine's cache holds for a prompt of the model as it is now, and nothing that another model made.

Prompts of different identities of a model (see ``watch``) share nothing, as those of different tenants do, so
an adapter that is switched back finds its own states again. States of weights that are gone are dropped at
once. A payload's digest says the same a second time: whose it is, for which model, for which tokens.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from milepost.engines.transformers.admission import Admission
from milepost.engines.transformers.audit import Auditor, Recomputation
from milepost.engines.transformers.driver import Driver
from milepost.engines.transformers.identity import PrefixDigests
from milepost.engines.transformers.prefill import belongs_to
from milepost.engines.transformers.watch import ModelIdentity
from milepost.errors import AuditError
from milepost.hosted_cache import HostedCache
from milepost.lease import Lease
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

    identity: ModelIdentity
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
    ) -> None:
        self.cache = cache
        self.admission = admission
        self.auditor = auditor
        self._driver = driver
        self._fingerprint = fingerprint
        self._segment_tokens = segment_tokens
        self._content: int | None = None

    def claim(self, tokens: TokenArray, *, tenant: str, breakpoints: Sequence[int] = ()) -> Claim:
        """Look at the model, and return what a prompt may resume from.

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
        rotated_for = self._driver.frequency_length(tokens.size)
        return Claim(
            identity=identity,
            tokens=tokens,
            tenant=tenant,
            namespace=f"{identity.tenant(str(rotated_for))}:{tenant}",
            fingerprint=self._fingerprint + identity.digest + rotated_for.to_bytes(8, "little"),
            segment_tokens=self._segment_tokens,
            breakpoints=tuple(breakpoints),
        )

    def acquire(self, claim: Claim) -> Lease:
        """Pin the deepest checkpoint that was made for exactly this claim."""
        resume_limit = None if self.admission.can_store(claim.identity) else 0
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
