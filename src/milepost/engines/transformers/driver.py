"""How one model is advanced: an empty cache, then segments of tokens, each ending in the last token's logits.

A :class:`Driver` hides how a family spells its cache argument and what it needs beside the tokens. It keeps
nothing between calls: all that a request has computed so far lives in its :class:`LiveCache`, so requests
can be interleaved freely over one model.
"""

import inspect
import math
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel

__all__ = ["Driver", "LiveCache"]

# Forward arguments that carry a cache, in the order they are looked for.
_CACHE_ARGUMENTS = ("past_key_values", "cache_params", "state")
# Recurrent kernels work through this many tokens at a time; a cut inside a chunk changes rounding.
_KERNEL_CHUNK = 64


@dataclass(slots=True)
class LiveCache:
    """What one request has computed: the model's own cache object after ``position`` tokens."""

    cache: Any
    position: int = 0


class Driver:
    """Runs one model instance. Families with special needs subclass it (see ``families``)."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        accepted = inspect.signature(model.forward).parameters
        self._cache_argument = next(name for name in _CACHE_ARGUMENTS if name in accepted)
        self._takes_positions = "position_ids" in accepted
        self._takes_logits_to_keep = "logits_to_keep" in accepted

    @property
    def alignment(self) -> int:
        """Tokens between positions where a cut changes no rounding: lcm(64, the model's chunk size)."""
        config = self.model.config.get_text_config(decoder=True)
        sizes = [
            int(size)
            for name in ("chunk_size", "mamba_chunk_size", "block_size")
            if (size := getattr(config, name, None))
        ]
        return math.lcm(_KERNEL_CHUNK, *sizes)

    def new_cache(self) -> Any:
        """Return an empty cache for one request."""
        return DynamicCache(config=self.model.config)

    def start(self) -> LiveCache:
        """Return the live cache of a request that has computed nothing."""
        return LiveCache(cache=self.new_cache())

    @torch.inference_mode()
    def advance(self, live: LiveCache, tokens: torch.Tensor) -> torch.Tensor:
        """Run ``tokens`` (shape ``[num_tokens]``) after what ``live`` has seen, updating ``live`` in place.

        Returns:
            Logits of the last token, shape ``[vocabulary_size]``.
        """
        outputs = self.model(**self.arguments(live, tokens))
        live.cache = self.cache_of(outputs)
        live.position += tokens.numel()
        logits: torch.Tensor = outputs.logits[0, -1]
        return logits

    def arguments(self, live: LiveCache, tokens: torch.Tensor) -> dict[str, Any]:
        """Return the keyword arguments of the model's forward call."""
        arguments: dict[str, Any] = {
            "input_ids": tokens[None],
            "use_cache": True,
            self._cache_argument: live.cache,
        }
        if self._takes_positions:
            end = live.position + tokens.numel()
            arguments["position_ids"] = torch.arange(live.position, end, device=tokens.device)[None]
        if self._takes_logits_to_keep:
            arguments["logits_to_keep"] = 1
        return arguments

    def cache_of(self, outputs: Any) -> Any:
        """Return the cache that a forward call has advanced."""
        return getattr(outputs, self._cache_argument)
