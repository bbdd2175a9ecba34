"""From a model of transformers to what engines over it share: loaded, probed, measured, and fingerprinted."""

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from milepost.counts import as_count
from milepost.disk import ModelFacts
from milepost.engines.cuts import Capture, Cuts
from milepost.engines.digests import engine_fingerprint
from milepost.engines.generation_settings import GenerationSettings
from milepost.engines.ownership import ownership_of
from milepost.engines.prefill import Numerics
from milepost.engines.served_model import ServedModel
from milepost.engines.text import Tokenizer
from milepost.engines.transformers.admission import Admission
from milepost.engines.transformers.driver import TransformersDriver
from milepost.engines.transformers.facts import model_facts
from milepost.engines.transformers.families import driver_for
from milepost.engines.transformers.footprint import measure_footprint
from milepost.engines.transformers.identity import weights_digest
from milepost.engines.transformers.loading import load_model
from milepost.engines.transformers.row_choice import RowChoice
from milepost.engines.transformers.segments import fitting_segment
from milepost.errors import ConfigurationError

__all__ = ["serve_model"]

# Segments that fast numerics computes at once at most.
_FAST_SEGMENTS = 8
# A CPU is faster with what its caches hold: calls of so many tokens against one (`benchmarks.capture`).
_CPU_TOKENS = 256
# A call of one token takes as long as this many tokens of a long one: 8 to 45 in three families on a CPU.
_STOP_TOKENS = 32
# A state from inside a call costs a start of each recurrence more.
_INSIDE_TOKENS = 8


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
        capture = _capture(admission, mode)
        cuts = _cuts(mode, segment_tokens, capture, driver.device.type)

        def describe() -> ModelFacts:
            if not isinstance(model, str | Path):
                raise ConfigurationError(
                    f"{driver.family}: a model given in memory may differ from any file in ways that nobody "
                    "can write down, so nothing is kept of it on disk; save it, and open the folder"
                )
            return model_facts(
                driver,
                admission.inventory,
                name=opened.name,
                numerics=mode,
                cuts=cuts,
                segment_tokens=segment_tokens,
            )

        return ServedModel(
            driver=driver,
            ownership=ownership_of(driver.model),
            admission=admission,
            probe=admission.probe,
            tokenizer=opened.tokenizer,
            footprint=measure_footprint(driver, admission.probe),
            numerics=mode,
            cuts=cuts,
            capture=capture,
            segment_tokens=segment_tokens,
            rows=RowChoice(driver),
            # Decoding a token at a time rounds otherwise than a prefill.
            keeps_answers=mode is Numerics.FAST,
            generation_settings=settings,
            fingerprint=_fingerprint(driver, mode, segment_tokens, opened.revision),
            describe=describe,
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


def _capture(admission: Admission, numerics: Numerics) -> Capture:
    if not admission.probe.has_state:
        return Capture(is_inside=False, reason="there are none")
    if numerics is Numerics.STRICT:
        return Capture(is_inside=False, reason="a call of another length would round otherwise")
    return admission.choose_capture()


def _cuts(numerics: Numerics, segment_tokens: int, capture: Capture, device: str) -> Cuts:
    """Strict cuts every prompt alike, cached or not: the cuts before a position are then a function of the
    position alone. Fast needs none but for states that cannot be had from inside a call.
    """
    if numerics is Numerics.STRICT:
        return Cuts(every=segment_tokens, grid=segment_tokens)
    num_segments = -(-_CPU_TOKENS // segment_tokens) if device == "cpu" else _FAST_SEGMENTS
    return Cuts(
        every=num_segments * segment_tokens,
        grid=1,
        stop_tokens=_INSIDE_TOKENS if capture.is_inside else _STOP_TOKENS,
        are_states_inside=capture.is_inside,
        inside_from=capture.inside_from,
    )


def _fingerprint(
    driver: TransformersDriver, numerics: Numerics, segment_tokens: int, revision: str | None
) -> bytes:
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


def _checked_segment(segment_tokens: int | None, driver: TransformersDriver) -> int:
    alignment = driver.alignment
    if segment_tokens is None:
        return fitting_segment(driver).num_tokens
    segment_tokens = as_count("segment_tokens", segment_tokens)
    if segment_tokens < 1 or segment_tokens % alignment:
        raise ConfigurationError(
            f"segment_tokens={segment_tokens}; for {driver.family} it is a multiple of {alignment} "
            "(64 and the model's own chunk size)"
        )
    return segment_tokens
