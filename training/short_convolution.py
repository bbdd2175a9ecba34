"""The short causal convolution in front of a gated-delta layer, and its gradient, in one pass over memory."""

from typing import Any

import numba
import numpy as np
import torch
from torch.nn.functional import silu

__all__ = ["short_convolution"]


def short_convolution(
    channels_first: torch.Tensor, weight: torch.Tensor, bias: None, *, activation: str, **_: Any
) -> torch.Tensor:
    """Take the place of ``causal_conv1d_fn``: ``[batch, channels, length]`` and ``[channels, taps]``."""
    if bias is not None or activation != "silu":
        raise ValueError("the layers of Qwen3.5 have no bias here, and SiLU")
    with torch.autocast("cpu", enabled=False):
        values = channels_first.transpose(1, 2).float()
        out = _ShortConvolution.apply(values, weight.float().t())
    return silu(out).to(channels_first.dtype).transpose(1, 2)


class _ShortConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
        ctx.arrays = values.detach().contiguous().numpy(), taps.detach().contiguous().numpy()
        return torch.from_numpy(_convolve(*ctx.arrays))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        dvalues, dtaps = _convolve_back(*ctx.arrays, gradients[0].contiguous().numpy())
        return torch.from_numpy(dvalues), torch.from_numpy(dtaps)


@numba.njit(fastmath=True, cache=True)
def _convolve(values, taps):  # type: ignore[no-untyped-def]
    batch, length, channels = values.shape
    num_taps = taps.shape[0]
    out = np.zeros_like(values)
    for b in range(batch):
        for t in range(length):
            for tap in range(max(0, num_taps - 1 - t), num_taps):
                source = t - num_taps + 1 + tap
                for c in range(channels):
                    out[b, t, c] += values[b, source, c] * taps[tap, c]
    return out


@numba.njit(fastmath=True, cache=True)
def _convolve_back(values, taps, gradient):  # type: ignore[no-untyped-def]
    batch, length, channels = values.shape
    num_taps = taps.shape[0]
    dvalues, dtaps = np.zeros_like(values), np.zeros_like(taps)
    for b in range(batch):
        for t in range(length):
            for tap in range(max(0, num_taps - 1 - t), num_taps):
                source = t - num_taps + 1 + tap
                for c in range(channels):
                    dvalues[b, source, c] += gradient[b, t, c] * taps[tap, c]
                    dtaps[tap, c] += gradient[b, t, c] * values[b, source, c]
    return dvalues, dtaps
