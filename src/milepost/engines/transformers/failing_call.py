"""Whose fault it is that a model's forward call fails: the cache's that it is given here, or its own."""

import torch

from milepost.engines.transformers.driver import TransformersDriver

__all__ = ["failing_call"]


def failing_call(driver: TransformersDriver, error: Exception) -> str:
    """Return in words in what the forward call of a model failed, and with what.

    Args:
        driver: Runs the model.
        error: What it raised on the cache that it was given.

    Complexity: at most two calls of two tokens.
    """
    with torch.inference_mode():
        is_of_the_cache = _runs_without(driver)
    if is_of_the_cache:
        where = "fails on the cache it is given"
    else:
        with torch.no_grad():
            runs_with_counters = _runs_without(driver)
        where = (
            "fails in torch.inference_mode, which it is run in here; under torch.no_grad it runs: quantise "
            "or wrap its weights in another way"
            if runs_with_counters
            else "fails, without a cache as well"
        )
    return f"its forward call {where}: {type(error).__name__}: {error}"


def _runs_without(driver: TransformersDriver) -> bool:
    model = driver.model
    tokens = torch.arange(2, device=model.device)[None] % driver.vocabulary_size
    try:
        model(input_ids=tokens, use_cache=False)
    except Exception:
        return False
    return True
