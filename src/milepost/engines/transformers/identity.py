"""Which weights these are: digests of samples of a model's tensors."""

from collections.abc import Iterable
from typing import Any

import torch
import xxhash

__all__ = ["sample_digest", "weights_digest"]

# Places along each axis of a parameter at which it is looked at, at most.
_SAMPLES_PER_AXIS = 8


def weights_digest(model: torch.nn.Module) -> str:
    """Digest every parameter's name, shape, dtype and a sample of its values.

    It tells a model from its fine-tuned sister, not from a copy with a few numbers changed: of each parameter
    at most eight places along an axis are looked at, which bounds the time however large the model is.
    """
    hasher = xxhash.xxh3_128()
    for name, parameter in model.named_parameters():
        hasher.update(repr((name, tuple(parameter.shape), str(parameter.dtype))).encode())
        _hash_sample(hasher, parameter)
    return hasher.hexdigest()


def sample_digest(tensors: Iterable[torch.Tensor]) -> bytes:
    """Digest a sample of the values of ``tensors``, as :func:`weights_digest` takes it."""
    hasher = xxhash.xxh3_128()
    for tensor in tensors:
        _hash_sample(hasher, tensor)
    return hasher.digest()


def _hash_sample(hasher: Any, tensor: torch.Tensor) -> None:
    # Weights on the meta device have no values, and quantized classes may not be sliced.
    if type(tensor.data) is torch.Tensor and not tensor.is_meta:
        steps = (slice(None, None, max(1, -(-size // _SAMPLES_PER_AXIS))) for size in tensor.shape)
        sample = tensor.detach()[tuple(steps)].cpu().reshape(-1).contiguous()
        hasher.update(sample.view(torch.uint8).numpy().data)
