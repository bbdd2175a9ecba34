"""The footprint of an opened model: the formula's, confirmed on real tensors, or else the tensors' own."""

import logging

import torch

from milepost.engines.transformers.driver import TransformersDriver
from milepost.engines.transformers.probe import ProbeReport
from milepost.engines.transformers.snapshot import capture_state, slice_kv
from milepost.errors import ConfigurationError, UnsupportedModelError
from milepost.footprint import Footprint, MeasuredBytes

__all__ = ["measure_footprint"]

_log = logging.getLogger(__name__)


def measure_footprint(driver: TransformersDriver, probe: ProbeReport) -> Footprint:
    """Return what this model's checkpoints and KV cost.

    The formula for the family is used where the probe's tensors confirm it to the byte; then the cost is in
    FLOPs too. Otherwise the model is run on two lengths and the bytes counted, and the cost is in tokens.

    Raises:
        UnsupportedModelError: no formula fits and the bytes do not follow a simple rule either.
    """
    dtype = str(driver.model.dtype).removeprefix("torch.")
    try:
        footprint = Footprint.from_config(driver.model.config, dtype=dtype)
    except UnsupportedModelError:
        return _count_footprint(driver)
    predicted = (footprint.checkpoint_bytes_at(probe.resume_position), footprint.kv_bytes_per_token)
    measured = (probe.checkpoint_bytes, probe.kv_bytes_per_token)
    if predicted == measured:
        return footprint
    _log.warning(
        "the formula for %s gives (checkpoint, KV per token) bytes = %s, this model holds %s: counting",
        driver.family,
        predicted,
        measured,
    )
    return _count_footprint(driver)


def _count_footprint(driver: TransformersDriver) -> Footprint:
    alignment = driver.alignment
    # Two lengths that fill every window: below that, a state still grows.
    longest_window = driver.longest_window or 0
    full = max(4 * alignment, -(-longest_window // alignment) * alignment)
    measurements = []
    for num_tokens in (full, full + alignment):
        live = driver.start()
        driver.advance(live, torch.arange(num_tokens) % driver.vocabulary_size)
        measurements.append(
            MeasuredBytes(
                num_tokens=num_tokens,
                state_bytes=capture_state(live.cache, num_tokens).num_bytes,
                kv_bytes=slice_kv(live.cache, 0, num_tokens).num_bytes,
            )
        )
    try:
        return Footprint.from_measurements(measurements)
    except ConfigurationError as error:
        raise UnsupportedModelError(
            f"{driver.family}: no byte formula is known for it, and counting found no rule: {error}"
        ) from error
