"""The probe of rows finds models whose rows are not their own."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from families import tiny_model
from milepost.engines.transformers.families import driver_for
from milepost.engines.transformers.patch import ForwardPatch
from milepost.engines.transformers.row_probe import measure_rows

LLAMA = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 96,
    "pad_token_id": 0,
}


def measured(model, *, is_fixed=True):
    return measure_rows(driver_for(model), 4, is_fixed=is_fixed)


def changed_by(change, model=None):
    """Return a model whose third block's result is changed by ``change`` in steps of several rows."""
    model = model or tiny_model("qwen3")

    def forward(upstream, module, hidden_states, **options):
        outputs = upstream(hidden_states, **options)
        return outputs if hidden_states.shape[0] == 1 else change(outputs)

    ForwardPatch(model.model.layers[2], forward).apply()
    return model


OTHERS = {
    "gpt2": {"n_embd": 64, "n_head": 4, "n_layer": 4},
    "bloom": {"n_head": 4, "n_layer": 4, "hidden_size": 64},
    "mistral": {"sliding_window": 40} | LLAMA,
    "gemma4_text": {
        "sliding_window": 40,
        "vocab_size_per_layer_input": 256,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    }
    | LLAMA,
}


@pytest.mark.parametrize(("model_type", "options"), OTHERS.items())
def test_positions_and_windows_of_other_kinds_are_let_through(model_type, options):
    """Learned positions, distances added to the scores, windows that a prompt outgrows."""
    config = AutoConfig.for_model(model_type, vocab_size=256, **options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)

    report = measured(model)

    assert report.refusal is None
    assert report.alone_distance < 1e-4
    assert report.swapped_distance > 0.5


def test_rows_that_mix_with_their_company_are_refused():
    report = measured(changed_by(lambda outputs: outputs + 0.2 * outputs.mean(dim=0, keepdim=True)))

    assert report.refusal is not None
    assert "away from those of the same prompts alone" in report.refusal


def test_rows_whose_last_bits_hang_on_their_slot_are_refused_where_rows_are_fixed():
    def nudged(outputs):
        nudges = torch.arange(outputs.shape[0]).view(-1, 1, 1) * 1e-6
        return outputs * (1 + nudges)

    report = measured(changed_by(nudged))
    assert report.refusal is not None
    assert "differ from slot to slot" in report.refusal

    free = measured(changed_by(nudged), is_fixed=False)
    assert free.refusal is None, "there rounding is all that is promised"


def test_rows_whose_last_bits_hang_on_their_company_are_refused_where_rows_are_fixed():
    report = measured(changed_by(lambda outputs: outputs * (1 + 1e-6 * outputs.amax())))

    assert report.refusal is not None
    assert "company to company" in report.refusal


def test_a_model_whose_swapped_rows_do_not_show_is_not_tested():
    model = tiny_model("qwen3")
    torch.nn.init.zeros_(model.lm_head.weight)

    report = measured(model)

    assert report.refusal is not None
    assert "not tested" in report.refusal


def test_a_model_whose_forward_fails_on_rows_is_refused_with_its_error():
    def fail(_):
        raise ValueError("one sequence at a time")

    report = measured(changed_by(fail))

    assert report.refusal == ("its forward call fails on rows: ValueError: one sequence at a time")


def test_positions_that_hang_on_length_are_refused_though_short_prompts_would_not_show_it():
    model = tiny_model("qwen3")
    model.config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    driver = driver_for(type(model)(model.config).eval())

    report = measure_rows(driver, 4, is_fixed=True)

    assert report.refusal is not None
    assert "length" in report.refusal


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("_attn_implementation_internal", "flash_attention_2", "flash_attention_2"),
        ("attention_chunk_size", 64, "chunks"),
    ],
)
def test_attention_that_rows_were_never_tried_with_is_refused(name, value, reason):
    model = tiny_model("qwen3")
    driver = driver_for(model)
    setattr(model.config, name, value)

    report = measure_rows(driver, 4, is_fixed=True)

    assert report.refusal is not None
    assert reason in report.refusal
