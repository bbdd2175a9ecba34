"""A fix is bound to the one model that is opened, changes only what was wrong, and comes off again."""

import copy
import subprocess
import sys

import pytest
import torch
from resuming import distance, prompt
from torch import nn

from families import BROKEN_UPSTREAM_FAMILIES, tiny_model
from milepost.engines.transformers.driver import TransformersDriver
from milepost.engines.transformers.families import driver_for
from milepost.engines.transformers.families.selective_scan import seeded_scan
from milepost.engines.transformers.patch import ForwardPatch

# bamba needs no fix of its code: the driver passes it the positions that it would count wrongly.
PATCHED_FAMILIES = tuple(family for family in BROKEN_UPSTREAM_FAMILIES if family != "bamba")
patched_families = pytest.mark.parametrize("family", PATCHED_FAMILIES)


@torch.inference_mode()
def upstream_logits(model, tokens):
    """Logits of every position, without any cache and without Milepost."""
    return model(input_ids=tokens[None], use_cache=False).logits[0]


def has_own_forward(model):
    return any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("family", BROKEN_UPSTREAM_FAMILIES)
@pytest.mark.parametrize("cuts", [(200,), (64, 101, 102, 140, 200)], ids=["one shot", "in segments"])
def test_a_fixed_family_computes_what_upstream_computes_on_a_whole_prompt(family, cuts):
    tokens = prompt(200)
    expected = upstream_logits(tiny_model(family), tokens)
    driver = driver_for(tiny_model(family))

    live, start = driver.start(), 0
    for end in cuts:
        logits = driver.advance(live, tokens[start:end])
        torch.testing.assert_close(logits, expected[end - 1], atol=2e-4, rtol=0)
        start = end


@pytest.mark.parametrize("family", BROKEN_UPSTREAM_FAMILIES)
def test_in_bfloat16_a_fixed_family_stays_within_rounding_of_upstream(family):
    tokens = prompt(200)
    model = tiny_model(family, torch.bfloat16)
    expected = upstream_logits(model, tokens)[-1]
    driver = driver_for(model)

    live = driver.start()
    for start, end in ((0, 64), (64, 101), (101, 102), (102, 200)):
        logits = driver.advance(live, tokens[start:end])

    assert distance(logits, expected) < 0.1


@patched_families
def test_a_second_model_of_the_family_behaves_as_upstream(family):
    tokens = prompt(100)
    other = tiny_model(family)
    before = upstream_logits(other, tokens)
    sources = {type(module): type(module).forward for module in other.modules()}

    fixed = driver_for(tiny_model(family))

    assert has_own_forward(fixed.model)
    assert not has_own_forward(other)
    assert all(kind.forward is forward for kind, forward in sources.items())
    assert torch.equal(upstream_logits(other, tokens), before)
    assert torch.equal(upstream_logits(fixed.model, tokens), before)


@patched_families
def test_release_gives_the_model_back_as_it_came(family):
    model = tiny_model(family)
    driver = driver_for(model)

    driver.release()

    assert not has_own_forward(model)
    driver.release()


@patched_families
def test_opening_a_model_twice_fixes_it_once(family):
    model, tokens = tiny_model(family), prompt(120)
    drivers, logits = [driver_for(model), driver_for(model)], []
    for driver in drivers:
        live = driver.start()
        driver.advance(live, tokens[:64])
        logits.append(driver.advance(live, tokens[64:]))

    assert torch.equal(*logits)
    drivers[1].release()
    assert has_own_forward(model), "what the first driver put on is not the second one's to take off"
    drivers[0].release()
    assert not has_own_forward(model)


@patched_families
def test_a_deep_copy_of_a_fixed_model_uses_its_own_weights(family):
    driver = driver_for(tiny_model(family))
    twin = copy.deepcopy(driver.model)
    expected = upstream_logits(twin, prompt(30))
    with torch.no_grad():
        for parameter in driver.model.parameters():
            parameter.zero_()

    assert torch.equal(upstream_logits(twin, prompt(30)), expected)


@pytest.mark.parametrize("family", ["minimax", "recurrent_gemma"])
def test_upstream_generation_still_runs_on_a_fixed_model(family):
    tokens = prompt(20)[None]
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    expected = tiny_model(family).generate(tokens, **options)

    assert torch.equal(driver_for(tiny_model(family)).model.generate(tokens, **options), expected)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("has_bias", [False, True])
def test_a_seeded_scan_equals_the_recurrence_started_from_the_state(gated, has_bias):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).float()

    inputs, steps, gate = draw(2, 6, 11), draw(2, 6, 11), draw(2, 6, 11)
    decay, weights_in, weights_out = -draw(6, 4).exp(), draw(2, 4, 11), draw(2, 4, 11)
    bias, state = draw(6), draw(2, 6, 4)

    def scan(inputs, steps, decay, weights_in, weights_out, *, start=None, z=None, delta_bias=None, **_):
        step = nn.functional.softplus(steps if delta_bias is None else steps + delta_bias[:, None])
        current = torch.zeros(2, 6, 4) if start is None else start
        outputs = []
        for t in range(inputs.shape[-1]):
            added = step[..., t, None] * weights_in[:, None, :, t] * inputs[..., t, None]
            current = (decay * step[..., t, None]).exp() * current + added
            outputs.append((current * weights_out[:, None, :, t]).sum(-1))
        result = torch.stack(outputs, -1)
        return (result if z is None else result * nn.functional.silu(z)), current

    operands = (inputs, steps, decay, weights_in, weights_out)
    options = {"z": gate if gated else None, "delta_bias": bias if has_bias else None}

    outputs, last = seeded_scan(
        scan, state, *operands, **options, delta_softplus=True, return_last_state=True
    )

    expected_outputs, expected_last = scan(*operands, **options, start=state)
    torch.testing.assert_close(outputs, expected_outputs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(last, expected_last, atol=1e-5, rtol=1e-5)


def test_a_patch_wraps_what_another_library_bound_and_restores_it():
    module = nn.Linear(2, 2)
    hooked = module.forward
    # What accelerate does to a module whose weights it moves about.
    module._old_forward = hooked
    module.forward = lambda inputs: module._old_forward(inputs) + 100
    patch = ForwardPatch(module, lambda upstream, _, inputs: upstream(inputs) + 1)
    inputs = torch.ones(2)

    patch.apply()
    torch.testing.assert_close(module(inputs), hooked(inputs) + 101)
    patch.undo()

    torch.testing.assert_close(module(inputs), hooked(inputs) + 100)


def test_the_generic_driver_patches_nothing():
    for family in PATCHED_FAMILIES:
        assert not has_own_forward(TransformersDriver(tiny_model(family)).model)


def test_importing_the_families_loads_no_model_code():
    source = "import sys, milepost.engines.transformers.families; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True).stdout

    assert "milepost.engines.transformers.families.minimax" in loaded
    assert "modeling_minimax" not in loaded
    assert "modeling_mamba" not in loaded
