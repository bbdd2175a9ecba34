"""Which weights these are, at a cost that does not grow with them."""

import torch

from milepost.engines.transformers.identity import weights_digest


def test_weights_are_told_apart_by_name_shape_type_and_value_at_a_bounded_cost(monkeypatch):
    def digest(*shape, name="weight", dtype=torch.bfloat16, fill=1.0, device="cpu"):
        module = torch.nn.Module()
        module.register_parameter(
            name, torch.nn.Parameter(torch.full(shape, fill, dtype=dtype, device=device), requires_grad=False)
        )
        return weights_digest(module)

    assert digest(20, 30) == digest(20, 30)
    others = [
        digest(20, 30),
        digest(30, 20),
        digest(20, 30, name="bias"),
        digest(20, 30, dtype=torch.float32),
        digest(20, 30, fill=2.0),
        digest(20, 30, device="meta"),
        digest(),
        digest(0),
    ]
    assert len(set(others)) == len(others)
    hashed = []
    plain = torch.Tensor.numpy
    monkeypatch.setattr(torch.Tensor, "numpy", lambda tensor: hashed.append(tensor.numel()) or plain(tensor))
    digest(3000, 2000, dtype=torch.uint8)
    assert sum(hashed) <= 64
