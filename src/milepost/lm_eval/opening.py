"""From the options of an evaluation to an engine with a tokenizer."""

import logging
from pathlib import Path
from typing import Any

import torch

from milepost.chat.opening import open_tokenizer
from milepost.counts import as_count
from milepost.engines.engine import Engine
from milepost.errors import ConfigurationError

__all__ = ["open_engine", "special_token"]

_log = logging.getLogger(__name__)

_DEFAULT_RUNNING = 8


def open_engine(
    pretrained: str | Path | torch.nn.Module | Engine,
    *,
    tokenizer: Any,
    batch_size: int | str | None,
    max_batch_size: int | None,
    device: str | None,
    **options: Any,
) -> Engine:
    """Return the engine that is asked for; arguments as of ``MilepostLM``.

    Raises:
        ConfigurationError: an option breaks its rule, or there is no tokenizer that knows special tokens.
    """
    if isinstance(pretrained, Engine):
        engine = pretrained
    else:
        engine = Engine.open(
            pretrained,
            tokenizer=open_tokenizer(tokenizer) if isinstance(tokenizer, str | Path) else tokenizer,
            max_running=_num_running(batch_size, max_batch_size),
            device=_available(device),
            **options,
        )
    if not hasattr(engine.tokenizer, "special_tokens_map"):
        kind = "no tokenizer" if engine.tokenizer is None else f"a {type(engine.tokenizer).__name__}"
        raise ConfigurationError(
            f"the model has {kind}, and an evaluation is text; give tokenizer= one of Hugging Face's kind"
        )
    return engine


def special_token(tokenizer: Any, name: str) -> int | None:
    """Return the id of the ``bos`` or ``eos`` token, None where there is none."""
    token: int | None = getattr(tokenizer, f"{name}_token_id", None)
    text = tokenizer.special_tokens_map.get(f"{name}_token")
    if token is None and text:
        token = tokenizer.encode(text, add_special_tokens=False)[0]
    return token


def _available(device: str | None) -> str | None:
    """Return the device, or None for the fastest there is: the harness asks for its ``cuda:0`` everywhere."""
    if device is None or not str(device).startswith("cuda") or torch.cuda.is_available():
        return device
    _log.warning(
        "device=%s, the harness's default, is not here; give --device, or the fastest is taken", device
    )
    return None


def _num_running(batch_size: int | str | None, max_batch_size: int | None) -> int:
    if batch_size is None or str(batch_size).startswith("auto"):
        most = _DEFAULT_RUNNING if max_batch_size is None else max_batch_size
        return as_count("max_batch_size", most, least=1)
    if isinstance(batch_size, str) and batch_size.isdigit():
        batch_size = int(batch_size)
    return as_count("batch_size", batch_size, least=1)
