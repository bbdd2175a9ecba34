"""From a model to all that engines over it share: loaded, probed, measured, and named by a fingerprint."""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from milepost.byte_size import parse_bytes
from milepost.counts import as_count
from milepost.engines.transformers.admission import Admission
from milepost.engines.transformers.driver import Driver
from milepost.engines.transformers.families import driver_for
from milepost.engines.transformers.footprint import measure_footprint
from milepost.engines.transformers.generation_settings import GenerationSettings
from milepost.engines.transformers.identity import engine_fingerprint, weights_digest
from milepost.engines.transformers.loading import load_model
from milepost.engines.transformers.ownership import Ownership, ownership_of
from milepost.engines.transformers.prefill import Numerics
from milepost.engines.transformers.text import Tokenizer
from milepost.errors import ConfigurationError
from milepost.footprint import Footprint
from milepost.hosted_cache import HostedCache
from milepost.placement import PlacementPolicy
from milepost.policies import CachePolicy, parse_policy

__all__ = ["ServedModel", "checked_policy", "serve_model"]

# Segments of about this many tokens cost a prefill next to nothing; see benchmarks/capture.py.
_DEFAULT_SEGMENT_TOKENS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model that was probed, and what was found. Engines over the same model share one.

    Attributes:
        driver: Runs it.
        ownership: Lets one call at a time work on it.
        admission: Looks whether it is still the same.
        tokenizer: Its own or the one given; None where it has none.
        footprint: What its checkpoints and KV cost.
        numerics: What a warm run promises against a cold one.
        segment_tokens: KV is stored, and strict prefill is cut, at multiples of this.
        generation_settings: What its generation_config asks for, and what was overridden of it.
        fingerprint: What makes states of it interchangeable.
    """

    driver: Driver
    ownership: Ownership
    admission: Admission
    tokenizer: Tokenizer | None
    footprint: Footprint
    numerics: Numerics
    segment_tokens: int
    generation_settings: GenerationSettings
    fingerprint: bytes

    def new_cache(self, *, capacity: int | str, policy: CachePolicy | PlacementPolicy) -> HostedCache:
        """Return an empty cache for this model.

        Raises:
            CapacityError: the budget holds not even one checkpoint.
            ConfigurationError: the capacity is no amount of bytes.
        """
        # Strict checkpoints sit where every run is cut; fast ones wherever a cut changes little.
        is_strict = self.numerics is Numerics.STRICT
        return HostedCache(
            capacity_bytes=parse_bytes(capacity),
            footprint=self.footprint,
            policy=policy,
            grid=self.segment_tokens if is_strict else self.driver.alignment,
            segment_tokens=self.segment_tokens,
        )


def serve_model(
    model: str | Path | torch.nn.Module,
    *,
    numerics: str,
    segment_tokens: int | None,
    tokenizer: Tokenizer | None,
    dtype: str,
    device: str | None,
    revision: str | None,
    generation_config: Mapping[str, Any] | transformers.GenerationConfig | None = None,
) -> ServedModel:
    """Load, probe and measure a model; arguments and errors as in ``Engine.open``.

    The fixes of its family stay on the model; where this fails, they are taken off.
    """
    if not isinstance(numerics, str) or numerics not in set(Numerics):
        raise ConfigurationError(f"numerics={numerics!r}; give one of {', '.join(Numerics)}")
    mode = Numerics(numerics)
    _check_tokenizer(tokenizer)
    opened = load_model(model, tokenizer=tokenizer, dtype=dtype, device=device, revision=revision)
    driver = driver_for(opened.model)
    try:
        segment_tokens = _checked_segment(segment_tokens, driver)
        settings = GenerationSettings(driver.model, overrides=generation_config)
        admission = Admission(driver)
        return ServedModel(
            driver=driver,
            ownership=ownership_of(driver.model),
            admission=admission,
            tokenizer=opened.tokenizer,
            footprint=measure_footprint(driver, admission.probe),
            numerics=mode,
            segment_tokens=segment_tokens,
            generation_settings=settings,
            fingerprint=_fingerprint(driver, mode, segment_tokens, opened.revision),
        )
    except BaseException:
        driver.release()
        raise


def _check_tokenizer(tokenizer: Any) -> None:
    if tokenizer is not None and not (hasattr(tokenizer, "encode") and hasattr(tokenizer, "decode")):
        remedy = "its tokenizer" if hasattr(tokenizer, "tokenizer") else "an open one, as AutoTokenizer gives"
        raise ConfigurationError(
            f"tokenizer={reprlib.repr(tokenizer)} has no encode and decode; give {remedy}"
        )


def checked_policy(policy: str | CachePolicy | PlacementPolicy) -> CachePolicy | PlacementPolicy:
    """Return a policy given by its name or as an object."""
    return parse_policy(policy) if isinstance(policy, str) else policy


def _fingerprint(driver: Driver, numerics: Numerics, segment_tokens: int, revision: str | None) -> bytes:
    """Digest what makes states of this model, in this engine, interchangeable."""
    config = driver.model.config
    return engine_fingerprint(
        config=config.to_diff_dict(),
        revision=revision,
        weights=weights_digest(driver.model),
        dtype=driver.model.dtype,
        device=driver.model.device.type,
        attention=config.get_text_config(decoder=True)._attn_implementation,
        torch=torch.__version__,
        transformers=transformers.__version__,
        numerics=numerics,
        segment_tokens=segment_tokens,
    )


def _checked_segment(segment_tokens: int | None, driver: Driver) -> int:
    alignment = driver.alignment
    if segment_tokens is None:
        return int(np.ceil(_DEFAULT_SEGMENT_TOKENS / alignment)) * alignment
    segment_tokens = as_count("segment_tokens", segment_tokens)
    if segment_tokens < 1 or segment_tokens % alignment:
        raise ConfigurationError(
            f"segment_tokens={segment_tokens}; for {driver.family} it is a multiple of {alignment} "
            "(64 and the model's own chunk size)"
        )
    return segment_tokens
