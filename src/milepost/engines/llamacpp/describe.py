"""What ``milepost probe`` and ``milepost footprint`` say of a GGUF file."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from milepost.engines.llamacpp.footprint import measured_footprint
from milepost.engines.llamacpp.opening import open_driver
from milepost.engines.llamacpp.probe import LlamaProbeReport, probe

__all__ = ["describe_footprint", "describe_probe"]

_SEGMENT_TOKENS = 256


def describe_probe(path: str | Path) -> dict[str, Any]:
    """Return what was measured on a model that passed, by name.

    Raises:
        UnsupportedModelError: it is refused, or nothing could be tested.
    """
    report = _probed(path)
    return {**asdict(report), "tolerance": report.tolerance, "verdict": "passed"}


def describe_footprint(path: str | Path) -> dict[str, Any]:
    """Return what a checkpoint and a token of KV take, by name. Loads and probes the model.

    Raises:
        UnsupportedModelError: as :func:`describe_probe`.
    """
    footprint = measured_footprint(_probed(path), segment_tokens=_SEGMENT_TOKENS)
    price = footprint.checkpoint_kv_tokens
    return {
        "checkpoint_bytes": footprint.checkpoint_bytes,
        "kv_bytes_per_token": footprint.kv_bytes_per_token,
        "checkpoint_kv_tokens": None if price is None else round(price),
    }


def _probed(path: str | Path) -> LlamaProbeReport:
    driver, _ = open_driver(path, is_strict=True)
    try:
        return probe(driver, is_strict=True)
    finally:
        driver.release()
