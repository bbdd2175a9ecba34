"""The quick layers compute what the library's do, forward and back."""

import pytest
import torch
from training.architecture import new_model
from training.delta_rule import gated_delta_rule
from training.quick_layers import quick_layers
from transformers.models.qwen3_5 import modeling_qwen3_5

torch.set_num_threads(1)


def drawn(*, length: int) -> list[torch.Tensor]:
    torch.manual_seed(length)
    query, key = (torch.randn(2, length, 2, 64) for _ in range(2))
    value = torch.randn(2, length, 4, 64)
    g, beta = -torch.rand(2, length, 4) * 0.2, torch.rand(2, length, 4) * 0.9 + 0.05
    return [each.requires_grad_() for each in (query, key, value, g, beta)]


def run(rule, inputs):
    query, key, value, g, beta = inputs
    out, _ = rule(query, key, value, g=g, beta=beta, use_qk_l2norm_in_kernel=True)
    weights = torch.linspace(-1, 1, out.numel()).view_as(out)
    return out, torch.autograd.grad((out * weights).sum(), inputs)


@pytest.mark.parametrize("length", [1, 32, 33, 150])
def test_the_delta_rule_and_its_gradients_are_the_librarys(length):
    inputs = drawn(length=length)
    out, gradients = run(gated_delta_rule, inputs)
    wanted, wanted_gradients = run(modeling_qwen3_5.torch_chunk_gated_delta_rule, inputs)
    torch.testing.assert_close(out, wanted, rtol=1e-4, atol=1e-6)
    for found, expected in zip(gradients, wanted_gradients, strict=True):
        assert (found - expected).norm() <= 1e-4 * expected.norm() + 1e-6


def test_a_whole_model_has_the_same_loss_and_gradients_and_the_librarys_layers_come_back():
    model = new_model(vocab_size=300, end_token=0, seed=1)
    tokens = torch.arange(90).view(2, 45) % 300
    before = modeling_qwen3_5.torch_chunk_gated_delta_rule

    def measured():
        model.zero_grad()
        loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        return loss, [parameter.grad.clone() for parameter in model.parameters()]

    loss, gradients = measured()
    with quick_layers():
        quick_loss, quick_gradients = measured()
    assert modeling_qwen3_5.torch_chunk_gated_delta_rule is before
    torch.testing.assert_close(quick_loss, loss)
    for found, expected in zip(quick_gradients, gradients, strict=True):
        assert (found - expected).norm() <= 1e-3 * expected.norm() + 1e-7


def test_it_refuses_what_training_never_does():
    query, key, value, g, beta = drawn(length=4)
    with pytest.raises(ValueError, match="start from nothing"):
        gated_delta_rule(query, key, value, g=g, beta=beta, output_final_state=True)
