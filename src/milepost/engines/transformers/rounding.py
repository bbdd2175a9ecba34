"""How far rounding carries in a model: its linear layers, disturbed in their last bit."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

__all__ = ["disturbed"]


@contextmanager
def disturbed(model: PreTrainedModel, seed: int) -> Iterator[None]:
    """While open, add noise of half a unit in the last place to what embeddings and linear layers return."""
    generators: dict[torch.device, torch.Generator] = {}

    def disturb(_: torch.nn.Module, __: Any, output: Any) -> Any:
        if not isinstance(output, torch.Tensor) or not output.is_floating_point():
            return output
        device = output.device
        if device not in generators:
            generators[device] = torch.Generator(device).manual_seed(seed)
        noise = torch.empty_like(output, dtype=torch.float32).normal_(generator=generators[device])
        return (output * (1 + noise * (torch.finfo(output.dtype).eps / 2))).to(output.dtype)

    hooks = [
        module.register_forward_hook(disturb)
        for module in model.modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
