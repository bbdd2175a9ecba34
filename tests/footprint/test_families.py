import copy

import pytest
import torch
from real_tensors import prefill

import families

PREFIX = 128
SUFFIX = 8


@pytest.mark.parametrize("family", [family for family in families.ALL_FAMILIES if family != "qwen3"])
def test_a_lost_state_shows_in_the_logits(family):
    model = families.tiny_model(family)
    tokens = families.tiny_prompt(PREFIX + SUFFIX)
    run = prefill(model, tokens[:, :PREFIX])
    intact = copy.deepcopy(run).resume(tokens[:, PREFIX:], PREFIX)
    for tensor in run.state:
        if tensor.is_floating_point():
            tensor.zero_()
    lost = run.resume(tokens[:, PREFIX:], PREFIX)
    assert (intact - lost).abs().max() > 1e-2


# glm5_next picks keys in pools, and upstream's decoding picks others than its prefill does.
@pytest.mark.parametrize("family", [family for family in families.ALL_FAMILIES if family != "glm5_next"])
def test_decoding_from_the_intact_state_continues_the_prompt(family):
    model = families.tiny_model(family)
    tokens = families.tiny_prompt(PREFIX + SUFFIX)
    whole = prefill(model, tokens).logits[:, PREFIX:]
    resumed = prefill(model, tokens[:, :PREFIX]).resume(tokens[:, PREFIX:], PREFIX)
    torch.testing.assert_close(resumed, whole, rtol=0, atol=1e-3)


def test_models_replay_from_their_seed_and_leave_the_global_random_state_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = families.tiny_model("qwen3_5", seed=1)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)
    second = families.tiny_model("qwen3_5", seed=1)
    other = families.tiny_model("qwen3_5", seed=2)
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(left, right) for left, right in pairs)
    pairs = zip(first.parameters(), other.parameters(), strict=True)
    assert not any(torch.equal(left, right) for left, right in pairs)
