"""What a GGUF file says of how answers are made, in transformers' terms, so that one code reads it."""

import logging
from typing import Any

import torch
from transformers import GenerationConfig, GenerationMixin, PreTrainedConfig

from milepost.engines.llamacpp.library import Model

__all__ = ["GenerationSource"]

_log = logging.getLogger(__name__)

# Keys of the file, and what ``generation_config`` calls them.
_SAMPLING = {
    "temp": ("temperature", float),
    "top_k": ("top_k", int),
    "top_p": ("top_p", float),
    "min_p": ("min_p", float),
    "penalty_repeat": ("repetition_penalty", float),
}


class GenerationSource(GenerationMixin):
    """Stands where transformers' own code expects the model whose ``generation_config`` holds. It is never
    run: its methods merge settings and build logits processors.

    Args:
        model: A GGUF model.
    """

    main_input_name = "input_ids"
    _is_stateful = True
    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, model: Model) -> None:
        self.config = PreTrainedConfig()
        self.config.vocab_size = model.vocabulary_size
        self.config.is_encoder_decoder = False
        self.generation_config = GenerationConfig(
            bos_token_id=model.token("bos"),
            eos_token_id=model.end_tokens() or None,
            pad_token_id=model.token("pad"),
            **_sampling(model),
        )


def _sampling(model: Model) -> dict[str, Any]:
    """Return the settings that the file recommends, where it does: then answers are drawn."""
    found: dict[str, Any] = {}
    for key, (name, kind) in _SAMPLING.items():
        text = model.metadata.get(f"general.sampling.{key}")
        if text is None:
            continue
        try:
            found[name] = kind(text)
        except ValueError:
            _log.warning(
                "%s says general.sampling.%s=%r, which is no number; it is ignored", model.path, key, text
            )
    if found:
        found["do_sample"] = found.get("temperature", 1.0) > 0
        if not found["do_sample"]:
            found.pop("temperature", None)
    return found
