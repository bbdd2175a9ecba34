"""Whose states a prompt may resume from: said once, when its request begins."""

from dataclasses import dataclass

from milepost.engines.base import Identity
from milepost.engines.digests import PrefixDigests
from milepost.pins import Pin
from milepost.tokens import TokenArray

__all__ = ["Claim"]


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
        pins: What the client asks to have kept.
    """

    identity: Identity
    tokens: TokenArray
    tenant: str
    namespace: str
    fingerprint: bytes
    segment_tokens: int
    breakpoints: tuple[int, ...]
    pins: tuple[Pin, ...] = ()

    def digests(self) -> PrefixDigests:
        """Return the digests of the prompt's prefixes, to be asked for in ascending order."""
        return PrefixDigests(
            self.fingerprint, self.tokens, tenant=self.tenant, segment_tokens=self.segment_tokens
        )
