"""Numbers in few bits: symmetric, rounded to nearest, a scale for each row.

A row is the last axis: of a gated delta rule's state (heads, key channels, value channels) the values of one
key channel, as SGLang has it; of Mamba-2 (heads, channels, state) and Mamba-1 (channels, state) the state of
one channel, as vLLM has it. Scales are float32.
"""

from dataclasses import dataclass

import torch

__all__ = ["QuantisedTensor", "Quantiser"]


@dataclass(frozen=True, slots=True)
class QuantisedTensor:
    """What is kept of a tensor.

    Attributes:
        codes: Its numbers in units of their row's scale, packed.
        scales: ``float32[..., 1]``.
        shape: Of the tensor.
        dtype: Of the tensor.
    """

    codes: torch.Tensor
    scales: torch.Tensor
    shape: torch.Size
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        """Bytes that this keeps alive."""
        return self.codes.nbytes + self.scales.nbytes


@dataclass(frozen=True, slots=True)
class Quantiser:
    """Makes numbers of ``bits`` bits: 8, or 6, of which four take three bytes.

    Raises:
        ValueError: another number of bits.
    """

    bits: int

    def __post_init__(self) -> None:
        if self.bits not in (6, 8):
            raise ValueError(f"bits={self.bits}; give 6 or 8")

    @property
    def largest(self) -> int:
        """The largest code; the smallest is its negative."""
        return (1 << self.bits - 1) - 1

    def encode(self, tensor: torch.Tensor) -> QuantisedTensor:
        """Return ``tensor`` in few bits; each number is off by at most half its row's scale.

        Raises:
            ValueError: a number is not finite.
        """
        numbers = tensor.float()
        scales = numbers.abs().amax(dim=-1, keepdim=True) / self.largest
        if not scales.isfinite().all():
            raise ValueError("a state is not finite")
        # A row of zeros is zeros whatever its scale. One of denormal numbers may have its scale rounded down.
        codes = (numbers / scales.where(scales > 0, 1)).round().clamp(-self.largest, self.largest)
        codes = codes.to(torch.int8)
        packed = codes if self.bits == 8 else _pack(codes.flatten())
        return QuantisedTensor(packed, scales, tensor.shape, tensor.dtype)

    def decode(self, kept: QuantisedTensor) -> torch.Tensor:
        """Return the tensor that ``kept`` stands for."""
        codes = kept.codes if self.bits == 8 else _unpack(kept.codes, kept.shape.numel())
        return (codes.view(kept.shape).float() * kept.scales).to(kept.dtype)


def _pack(codes: torch.Tensor) -> torch.Tensor:
    """Return codes of -31 to 31, four of them in three bytes."""
    padded = torch.nn.functional.pad(codes, (0, -codes.numel() % 4)).view(-1, 4).int() + 32
    first, second, third, fourth = padded.unbind(1)
    packed = torch.stack(
        (first | second << 6 & 0xFF, second >> 2 | third << 4 & 0xFF, third >> 4 | fourth << 2), dim=1
    )
    return packed.to(torch.uint8).flatten()


def _unpack(packed: torch.Tensor, count: int) -> torch.Tensor:
    one, two, three = packed.view(-1, 3).int().unbind(1)
    codes = torch.stack((one & 63, one >> 6 | two << 2 & 63, two >> 4 | three << 4 & 63, three >> 2), dim=1)
    return codes.flatten()[:count] - 32
