"""A net under everything that no look foresees: some of what is resumed from is computed again and compared.

A look at the model (``watch``) sees what Python can see. Values written through ``.data``, by a kernel of
one's own or by a broken piece of memory look like nothing. So of a small share of hits the stretch before the
resume position is run again, from the next earlier stored state (one segment where there is one, else from
the start), through the cuts of any strict run, and the state and the KV must come out bit for bit as they are
stored. The work is done in turns, like any prefill, and charged to the request.

Bits can be compared in strict numerics only, and only where the model gives the same bits twice. Where it
does not, nothing is audited; and should it turn out in an audit (the stretch is run once more before a state
is called wrong), audits end there, with a warning.
"""

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from milepost.engines.base import Driver, KVPiece, State
from milepost.engines.cuts import Cuts
from milepost.engines.digests import PrefixDigests
from milepost.engines.keeping import AnyCache
from milepost.engines.payloads import StoredState, belongs_to
from milepost.engines.prefill import Numerics, Prefill
from milepost.errors import ConfigurationError
from milepost.lease import Lease

__all__ = ["Audit", "AuditStatistics", "Auditor", "Recomputation", "checked_audit"]

_log = logging.getLogger(__name__)

_DEFAULT_SHARE = 1 / 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """How often stored states are checked, and what becomes of a wrong one.

    Attributes:
        share: Of the hits, from 0 (none) to 1 (all).
        on_mismatch: ``log`` writes one error line and answers the request from scratch; ``raise`` gives the
            request an ``AuditError``, for tests. All states of the model are dropped either way.
        source: Draws the hits that are checked.
    """

    share: float = _DEFAULT_SHARE
    on_mismatch: Literal["log", "raise"] = "log"
    source: random.Random = field(default_factory=lambda: random.Random(0))

    def __post_init__(self) -> None:
        if (
            isinstance(self.share, bool)
            or not isinstance(self.share, int | float)
            or not 0 <= self.share <= 1
        ):
            raise ConfigurationError(
                f"audit={self.share!r}; give the share of hits to compute again, from 0 (none) to 1 (all)"
            )
        if self.on_mismatch not in ("log", "raise"):
            raise ConfigurationError(f"on_mismatch={self.on_mismatch!r}; give 'log' or 'raise'")


def checked_audit(audit: float | Audit | None, numerics: Numerics) -> Audit:
    """Return what was asked for; None is a share of 1/256 where bits can be compared.

    Raises:
        ConfigurationError: the share is none, or bits cannot be compared.
    """
    is_strict = numerics is Numerics.STRICT
    if audit is None:
        return Audit() if is_strict else Audit(share=0)
    checked = audit if isinstance(audit, Audit) else Audit(share=audit)
    if checked.share and not is_strict:
        raise ConfigurationError(
            f"audit={checked.share:g} with numerics='{numerics}'; bits can be compared in strict numerics "
            "only: leave audit out, or give 0"
        )
    return checked


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditStatistics:
    """What one engine's audits found.

    Attributes:
        num_audits: Hits that were checked.
        num_mismatches: Those whose stored state was wrong.
        num_tokens: Prompt tokens computed again for it.
    """

    num_audits: int = 0
    num_mismatches: int = 0
    num_tokens: int = 0


class Auditor:
    """Draws the hits to check and counts what came of it, for one engine."""

    def __init__(self, audit: Audit, *, is_repeatable: bool) -> None:
        self.audit = audit
        self._is_active = audit.share > 0 and is_repeatable
        if audit.share > 0 and not is_repeatable:
            _log.info("no audits: the model gives other bits each time, so they cannot be compared")
        self._num_audits = self._num_mismatches = self._num_tokens = 0

    @property
    def statistics(self) -> AuditStatistics:
        """What was found so far."""
        return AuditStatistics(
            num_audits=self._num_audits, num_mismatches=self._num_mismatches, num_tokens=self._num_tokens
        )

    def is_due(self) -> bool:
        """Draw whether the hit at hand is to be checked."""
        return self._is_active and self.audit.source.random() < self.audit.share

    def note(self, *, num_tokens: int, is_match: bool) -> None:
        """Count a check that is done."""
        self._num_audits += 1
        self._num_mismatches += not is_match
        self._num_tokens += num_tokens

    def stop(self) -> None:
        """Check no more: the same stretch, run twice, came out differently."""
        self._is_active = False
        _log.warning("audits end here: the model gives other bits each time, so they cannot be compared")


class Recomputation:
    """Computes what a lease resumes from again, a segment a step, from the next earlier stored state.

    Attributes:
        is_match: Whether it came out as it is stored.
        is_repeatable: Whether it came out alike twice; tried only where it is no match.
        num_tokens: Tokens computed.

    Args:
        lease: The hit, held by the caller until this is closed.
        tenant: Whose it is, to the cache.
        digests: Of its prompt.
    """

    def __init__(
        self,
        lease: Lease,
        *,
        driver: Driver,
        cache: AnyCache,
        tenant: str,
        digests: PrefixDigests,
        segment_tokens: int,
        cuts: Cuts,
    ) -> None:
        self._lease = lease
        self._segment_tokens = segment_tokens
        self._cuts = cuts
        self.is_match = self.is_repeatable = True
        self.num_tokens = 0
        self._driver, self._digests = driver, digests
        self._first: _Stretch | None = None
        self._earlier = cache.acquire(
            lease.tokens, tenant=tenant, resume_limit=lease.resume_position - cuts.least
        )
        try:
            if not belongs_to(self._earlier, digests):
                self._earlier.release()
                self._earlier = cache.acquire(lease.tokens, tenant=tenant, resume_limit=0)
            self._prefill: Prefill | None = self._start()
        except BaseException:
            self._earlier.release()
            raise

    @property
    def is_done(self) -> bool:
        """Whether it is known whether the stored state is right."""
        return self._prefill is None

    def step(self) -> None:
        """Compute one segment more; compare at the end of the stretch."""
        prefill, position = self._prefill, self._lease.resume_position
        assert prefill is not None
        before = prefill.live.position
        prefill.step()
        self.num_tokens += prefill.live.position - before
        if prefill.live.position < position:
            return
        result = self._result(prefill)
        self._let_go()
        if self._first is not None:
            self.is_repeatable = self._agree(result, self._first)
        elif not (is_match := self._agree(result, self._stored())):
            # Before a state is called wrong: does the model agree with itself?
            self.is_match, self._first, self._prefill = is_match, result, self._start()

    def close(self) -> None:
        """Let go of what it started from. Harmless when done twice."""
        self._let_go()
        self._earlier.release()

    def _let_go(self) -> None:
        if self._prefill is not None:
            self._prefill.close()
            self._prefill = None

    def _start(self) -> Prefill:
        is_stateless = self._lease.state is None
        return Prefill(
            driver=self._driver,
            lease=self._earlier,
            planned=() if is_stateless else (self._lease.resume_position,),
            digests=self._digests,
            segment_tokens=self._segment_tokens,
            cuts=self._cuts,
        )

    def _result(self, prefill: Prefill) -> "_Stretch":
        position, step = self._lease.resume_position, self._segment_tokens
        stored = None if self._lease.state is None else prefill.payloads.checkpoint(position)
        # Whole segments from the one on in which it began, as the store has them.
        begin = self._earlier.resume_position // step * step
        return _stretch(stored, prefill.payloads.kv_segments(begin, position // step * step))

    def _stored(self) -> "_Stretch":
        first = self._earlier.resume_position // self._segment_tokens
        stored = self._lease.state
        assert stored is None or isinstance(stored, StoredState)
        return _stretch(stored, self._lease.kv_segments[first:])

    def _agree(self, one: "_Stretch", other: "_Stretch") -> bool:
        (state, kv), (other_state, other_kv) = one, other
        if (state is None) != (other_state is None) or len(kv) != len(other_kv):
            return False
        return (state is None or self._driver.has_same_bits(state, other_state)) and all(
            map(self._driver.has_same_bits, kv, other_kv)
        )


_Stretch = tuple[State | None, list[KVPiece]]


def _stretch(stored: StoredState | None, segments: Sequence[Any]) -> _Stretch:
    """Return the state and all KV that there is, its tail inside a segment too."""
    pieces = [each.piece for each in segments if each.piece.num_bytes]
    if stored is None:
        return None, pieces
    return stored.state, pieces if stored.tail is None else [*pieces, stored.tail]
