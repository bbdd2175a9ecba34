"""What ``milepost footprint`` prints: the cost of a model's checkpoints, KV and prefill."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from milepost.engines.engine import Engine
from milepost.engines.transformers.completed_config import completed_config
from milepost.engines.transformers.loading import load_config
from milepost.footprint import Footprint, calibrate
from milepost.footprint.calibration import DEFAULT_LENGTHS

__all__ = ["describe_footprint"]

_KILO = 1_000


def describe_footprint(
    model: str | PreTrainedModel, *, dtype: str | None, num_tokens: int, with_seconds: bool
) -> dict[str, Any]:
    """Return the facts by name.

    Args:
        model: A folder, a hub id or the path of a ``config.json``.
        dtype: Element type; what the configuration names unless given.
        num_tokens: Prompt length for the cost of a prefill.
        with_seconds: Also measure seconds on this machine; loads the model.
    """
    in_memory = str(model.dtype).removeprefix("torch.") if isinstance(model, PreTrainedModel) else None
    footprint = Footprint.from_config(_config_of(model), dtype=dtype or in_memory)
    price = footprint.checkpoint_kv_tokens
    facts: dict[str, Any] = {
        "checkpoint_bytes": footprint.checkpoint_bytes,
        "kv_bytes_per_token": footprint.kv_bytes_per_token,
        "checkpoint_kv_tokens": None if price is None else round(price),
        "prefill_tokens": num_tokens,
        "prefill_flops": float(footprint.cost(num_tokens)),
        "prefill_flops_attention": float(footprint.cost.attention(num_tokens)),
    }
    if with_seconds:
        facts |= _seconds(model, dtype, num_tokens)
    return facts


def _config_of(model: str | PreTrainedModel) -> object:
    if isinstance(model, PreTrainedModel):
        return model.config
    return completed_config(model) if Path(model).exists() else load_config(model)


def _seconds(model: str | PreTrainedModel, dtype: str | None, num_tokens: int) -> dict[str, Any]:
    engine = Engine.open(model, policy="none", dtype=dtype or "auto")
    limit = engine.driver.context_length or max(DEFAULT_LENGTHS)
    lengths = [length for length in DEFAULT_LENGTHS if length <= limit]
    cost = calibrate(engine.footprint.cost, engine.measure_prefill, lengths=lengths)
    return {
        "prefill_seconds": float(cost(num_tokens)) + cost.fixed_per_pass,
        "seconds_per_1000_tokens": cost.linear(_KILO),
    }
