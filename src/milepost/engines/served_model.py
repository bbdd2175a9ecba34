"""A model that was opened and probed, and all that engines over it share."""

from collections.abc import Callable
from dataclasses import dataclass

from milepost.byte_size import parse_bytes
from milepost.counts import as_count
from milepost.disk import ModelFacts
from milepost.engines.base import Admission, Driver, Probe, RowMaker, Rows
from milepost.engines.cuts import Capture, Cuts
from milepost.engines.generation_settings import GenerationSettings
from milepost.engines.ownership import Ownership
from milepost.engines.prefill import Numerics
from milepost.engines.text import Tokenizer
from milepost.errors import ModelChangedError
from milepost.footprint import Footprint
from milepost.hosted_cache import HostedCache
from milepost.placement import PlacementPolicy
from milepost.policies import CachePolicy

__all__ = ["ServedModel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """See the module. Engines over the same model share one.

    Attributes:
        driver: Runs it.
        ownership: Lets one call at a time work on it.
        admission: Looks whether it is still the same.
        probe: What was found when it was opened.
        tokenizer: Its own or the one given; None where it has none.
        footprint: What its checkpoints and KV cost.
        numerics: What a warm run promises against a cold one.
        cuts: Where a prompt may be cut, for that.
        capture: How states are taken on the way.
        segment_tokens: KV is stored in pieces of this many tokens.
        rows: Makes room for several answers in one call.
        keeps_answers: Whether a state at an answer's end is as good as one that a prompt left there.
        generation_settings: What its generation_config asks for, and what was overridden of it.
        fingerprint: What makes states of it interchangeable.
        describe: Says what states of it hang on, in words that the next process finds again; see
            :meth:`persistent_facts`.
    """

    driver: Driver
    ownership: Ownership
    admission: Admission
    probe: Probe
    tokenizer: Tokenizer | None
    footprint: Footprint
    numerics: Numerics
    cuts: Cuts
    capture: Capture
    segment_tokens: int
    rows: RowMaker
    keeps_answers: bool
    generation_settings: GenerationSettings
    fingerprint: bytes
    describe: Callable[[], ModelFacts]

    def persistent_facts(self) -> ModelFacts:
        """Return what states of this model hang on, in words that the next process finds again.

        Raises:
            ConfigurationError: it was given in memory, and not loaded from files here.
            UnsupportedModelError: its weights are not plain numbers.
            ModelChangedError: it was changed since it was opened.

        Complexity: O(bytes of weights): every one of them is read.
        """
        before = self.admission.identify()
        facts = self.describe()
        if not self.admission.is_as_opened(before) or self.admission.identify() != before:
            raise ModelChangedError(
                "the model was changed after it was opened, so what is kept of it on disk is another "
                "model's; open it again"
            )
        return facts

    def new_rows(self, count: int | None, *, max_running: int) -> Rows:
        """Return room for the answers of one engine; arguments as in ``Engine.open``.

        Raises:
            ConfigurationError: ``count`` is no number of rows.
        """
        if count is not None:
            count = as_count("decode_rows", count, least=1)
        is_strict = self.numerics is Numerics.STRICT
        if count is None:
            count = 1 if is_strict else max_running
        return self.rows(count, is_fixed=is_strict)

    def new_cache(self, *, capacity: int | str, policy: CachePolicy | PlacementPolicy) -> HostedCache:
        """Return an empty cache for this model.

        Raises:
            CapacityError: the budget holds not even one checkpoint.
            ConfigurationError: the capacity is no amount of bytes.
        """
        return HostedCache(
            capacity_bytes=parse_bytes(capacity),
            footprint=self.footprint,
            policy=policy,
            grid=self.cuts.grid,
            segment_tokens=self.segment_tokens,
            capture_tokens=self.cuts.stop_tokens,
        )
