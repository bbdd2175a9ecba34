"""What ``milepost footprint`` prints of a GGUF file: the cost of its checkpoints and KV."""

from pathlib import Path
from typing import Any

from milepost.engines.llamacpp.footprint import measured_footprint
from milepost.engines.llamacpp.opening import SEGMENT_TOKENS, open_driver
from milepost.engines.llamacpp.probe import probe

__all__ = ["describe_footprint"]


def describe_footprint(
    path: str | Path, *, key_type: str | None = None, value_type: str | None = None
) -> dict[str, Any]:
    """Return what a checkpoint and a token of KV take, by name. Loads and probes the model.

    Args:
        path: A GGUF file.
        key_type: Number format of cached keys; see ``kv_types``.
        value_type: Number format of cached values.

    Raises:
        UnsupportedModelError: it is refused, or nothing could be tested.
    """
    driver, _ = open_driver(path, is_strict=True, key_type=key_type, value_type=value_type)
    try:
        footprint = measured_footprint(probe(driver, is_strict=True), segment_tokens=SEGMENT_TOKENS)
    finally:
        driver.release()
    price = footprint.checkpoint_kv_tokens
    return {
        "checkpoint_bytes": footprint.checkpoint_bytes,
        "kv_bytes_per_token": footprint.kv_bytes_per_token,
        "checkpoint_kv_tokens": None if price is None else round(price),
    }
