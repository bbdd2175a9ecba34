"""Stands for quantisers whose codes are parameters and whose scales hang on them (bitsandbytes) or lie beside
them (hqq), where neither parameters nor buffers of a module are.
"""

from types import SimpleNamespace

import torch


class Codes(torch.nn.Parameter):
    """A parameter of a class of its own, as bitsandbytes' is."""

    def __new__(cls, codes):
        return torch.Tensor._make_subclass(cls, codes, False)


class HangingScales(torch.nn.Module):
    """The scales are the weight's."""

    def __init__(self, linear):
        super().__init__()
        codes, scale = _packed(linear.weight)
        self.weight = Codes(codes)
        self.weight.quantised = SimpleNamespace(scale=scale, block=1)

    @property
    def scale(self):
        return self.weight.quantised.scale

    def forward(self, inputs):
        values = self.weight.quantised
        # No parameter of a class of its own takes part in what torch computes.
        codes = self.weight.as_subclass(torch.Tensor).float()
        return torch.nn.functional.linear(inputs, codes * values.scale * values.block)


class ScalesBeside(torch.nn.Module):
    """The scales are in a dictionary of the module's."""

    def __init__(self, linear):
        super().__init__()
        codes, scale = _packed(linear.weight)
        self.weight = torch.nn.Parameter(codes, requires_grad=False)
        self.meta = {"scale": scale, "block": 1}

    @property
    def scale(self):
        return self.meta["scale"]

    def forward(self, inputs):
        weight = self.weight.float() * self.meta["scale"] * self.meta["block"]
        return torch.nn.functional.linear(inputs, weight)


def pack(model, kind):
    """Put layers of ``kind`` in the place of all that project down."""
    for layer in model.model.layers:
        layer.mlp.down_proj = kind(layer.mlp.down_proj)
    return model


def _packed(weight):
    scale = weight.detach().abs().amax(-1, keepdim=True) / 127
    return (weight.detach() / scale).round().to(torch.int8), scale
