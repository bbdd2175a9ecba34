"""Who a stored payload belongs to: a digest of the engine, of the tenant and of the exact tokens before it.

The store finds payloads by their tokens, so a digest never decides a match; it is the second opinion. A
payload whose digest disagrees with the prompt it is about to serve is a miss, never a guess.
"""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import xxhash

from milepost.tokens import TokenArray

__all__ = ["PrefixDigests", "engine_fingerprint", "sample_digest", "weights_digest"]

# Places along each axis of a parameter at which it is looked at, at most.
_SAMPLES_PER_AXIS = 8


def engine_fingerprint(**facts: Any) -> bytes:
    """Digest everything that two runs must share for their states to be interchangeable."""
    return xxhash.xxh3_128(json.dumps(facts, sort_keys=True, default=str).encode()).digest()


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


class PrefixDigests:
    """Digests of the prefixes of one tenant's prompt under one engine. O(num_tokens) for all together.

    Args:
        fingerprint: The engine's (see :func:`engine_fingerprint`).
        tokens: The prompt.
        tenant: Whose prompt it is.
        segment_tokens: Segment boundaries are remembered on the way, so they can be asked for at any time.
    """

    def __init__(self, fingerprint: bytes, tokens: TokenArray, *, tenant: str, segment_tokens: int) -> None:
        self._hasher = xxhash.xxh3_128(fingerprint)
        # With its length before it, so that no tenant's name can pass for tokens.
        salt = tenant.encode(errors="surrogatepass")
        self._hasher.update(len(salt).to_bytes(8, "little") + salt)
        self._tokens = np.ascontiguousarray(tokens)
        self._segment_tokens = segment_tokens
        self._position = 0
        self._digests: dict[int, bytes] = {}

    def at(self, position: int) -> bytes:
        """Return the digest of the first ``position`` tokens. Off the segment boundaries, ask in ascending
        order.
        """
        while position > self._position:
            boundary = (self._position // self._segment_tokens + 1) * self._segment_tokens
            stop = min(position, boundary)
            self._hasher.update(self._tokens[self._position : stop].data)
            self._position = stop
            self._digests[stop] = self._hasher.digest()
        return self._digests[position]
