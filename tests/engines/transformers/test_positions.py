"""Positions that depend on length: prompts of any length are answered as ``generate`` answers them, and
states are shared only where positions mean the same."""

import copy

import pytest
import torch
from resuming import prompt
from transformers import AutoConfig, AutoModelForCausalLM

from families import tiny_config, tiny_model
from milepost.engines.engine import Engine
from milepost.engines.transformers import positions
from milepost.engines.transformers.driver import TransformersDriver
from milepost.engines.transformers.families import driver_for
from milepost.engines.transformers.probe import Verdict, measure_resume, probe_resume
from milepost.errors import InvalidRequestError, UnsupportedModelError

torch.set_num_threads(1)

SWITCH = 128
CONTEXT = 512
_SHORT_OF_16 = {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": SWITCH, **_SHORT_OF_16,
}  # fmt: skip
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
YARN = {
    "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": SWITCH,
}  # fmt: skip
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
_PLAIN = {
    "vocab_size": 256, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "head_dim": 16,
    "num_attention_heads": 4, "num_key_value_heads": 2,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_PHI = _PLAIN | {"max_position_embeddings": CONTEXT, "original_max_position_embeddings": SWITCH}
_WINDOWS = {"sliding_window": 96, "layer_types": ["sliding_attention", "full_attention", "full_attention"]}

MODELS = {
    "phi3 longrope": ("phi3", _PHI | {"rope_parameters": LONGROPE}),
    "phimoe longrope": (
        "phimoe",
        _PHI
        | {"rope_parameters": LONGROPE | {"short_mscale": 1.0, "long_mscale": 1.3}}
        | {"num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "llama longrope": ("llama", _PLAIN | {"max_position_embeddings": CONTEXT, "rope_parameters": LONGROPE}),
    "llama dynamic": ("llama", _PLAIN | {"max_position_embeddings": SWITCH, "rope_parameters": DYNAMIC}),
    "gemma3 longrope in one kind of layer": (
        "gemma3_text",
        _PLAIN
        | _WINDOWS
        | {
            "max_position_embeddings": CONTEXT,
            "rope_parameters": {
                "full_attention": LONGROPE,
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
    ),
}
all_models = pytest.mark.parametrize("name", MODELS)


def made(name):
    kind, options = MODELS[name] if isinstance(name, str) else name
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **copy.deepcopy(options)))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    scale = 4 if parameter.shape[0] == 256 else 1.5
                    parameter.normal_(std=scale * parameter.shape[-1] ** -0.5)
    return model.eval()


def hybrid(rope):
    """A qwen3_5 whose attention layer is rotated by ``rope``."""
    model = tiny_model("qwen3_5")
    config = tiny_config("qwen3_5")
    config.rope_parameters = rope | {"partial_rotary_factor": 0.25}
    config.max_position_embeddings = SWITCH if rope is DYNAMIC else CONTEXT
    other = AutoModelForCausalLM.from_config(config).eval()
    other.load_state_dict(model.state_dict())
    return other


def opened(model, **options):
    defaults = {"capacity": "64MiB", "segment_tokens": 64, "policy": "dense:64"}
    return Engine.open(model, **(defaults | options))


def answer(engine, tokens, num_tokens=12):
    return engine.generate(tokens.numpy(), max_new_tokens=num_tokens, ignore_end_token=True)


def by_transformers(model, tokens, num_tokens=12):
    """What ``generate`` says on a model that has answered nothing before."""
    return tuple(
        copy.deepcopy(model)
        .generate(
            tokens[None],
            attention_mask=torch.ones_like(tokens[None]),
            max_new_tokens=num_tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )[0, tokens.numel() :]
        .tolist()
    )


@all_models
def test_every_length_is_answered_as_generate_answers_it_cold_and_warm(name):
    model = made(name)
    engine = opened(copy.deepcopy(model))
    long = prompt(300)
    # Below the switch, on it, across it within the answer, beyond it, back again, and all of it once more.
    for length in (100, SWITCH - 4, SWITCH, SWITCH + 1, 300, 200, 100, 300):
        tokens = long[:length]
        assert answer(engine, tokens).tokens == by_transformers(model, tokens), length
    engine.cache.check()


@pytest.mark.parametrize("rope", [LONGROPE, DYNAMIC], ids=["longrope", "dynamic"])
def test_a_hybrid_is_answered_as_generate_answers_it(rope):
    rope = rope if rope is DYNAMIC else rope | {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    model = hybrid(rope)
    engine = opened(copy.deepcopy(model))
    for length in (SWITCH - 4, 300, 300):
        tokens = prompt(300)[:length]
        completion = answer(engine, tokens)
        assert completion.tokens == by_transformers(model, tokens)
    assert completion.report.reused == 256, "the second of two equal prompts resumes"


@all_models
def test_warm_equals_cold_bit_for_bit_on_both_sides_of_the_switch(name):
    warm, cold = opened(made(name)), opened(made(name), policy="none")
    for length in (120, 300, 120, 300):
        tokens = prompt(300)[:length]
        mine, other = answer(warm, tokens), answer(cold, tokens)
        assert mine.prompt_logits_digest == other.prompt_logits_digest
        assert mine.tokens == other.tokens
    assert mine.report.reused == 256


@all_models
def test_without_the_rule_prompts_beyond_the_switch_would_be_answered_otherwise(name, monkeypatch):
    """The control: the comparison with ``generate`` can fail, and the probe sees that it would."""
    monkeypatch.setattr(positions, "length_rules", lambda config: ())
    model = made(name)
    driver = driver_for(copy.deepcopy(model))
    tokens = prompt(300)
    live = driver.start(num_tokens=300)
    for piece in tokens.split(64):
        logits = driver.advance(live, piece)
    with torch.inference_mode():
        right = copy.deepcopy(model)(tokens[None]).logits[0, -1]
    assert (logits - right).abs().max() > 0.05 * right.std()

    report = measure_resume(driver)
    assert report.verdict is Verdict.REFUSED
    assert "depends on the length of the sequence" in report.refusal


@all_models
def test_the_probe_looks_beyond_the_switch(name):
    far = probe_resume(driver_for(made(name))).far_positions
    assert far.position >= CONTEXT - 1
    assert far.has_rule
    assert far.moved > 5e-3, "the far token changes the meaning of the positions before it"
    assert far.resumed < 1e-4


def test_positions_that_depend_on_length_in_a_way_nobody_knows_are_refused():
    class Scaled(torch.nn.Module):
        """Rotates everything more slowly once the sequence is longer than 200 tokens."""

        def __init__(self, upstream):
            super().__init__()
            self.upstream = upstream

        def forward(self, like, position_ids):
            return self.upstream(like, position_ids / 2 if int(position_ids.max()) >= 200 else position_ids)

    model = tiny_model("qwen3")
    model.model.rotary_emb = Scaled(model.model.rotary_emb)

    with pytest.raises(
        UnsupportedModelError, match="depends on the length of the sequence, by a rule that is unknown"
    ):
        probe_resume(driver_for(model))


def test_prompts_share_what_means_the_same_and_nothing_else():
    tokens = prompt(300)
    engine = opened(made("phi3 longrope"))
    assert [answer(engine, tokens[:n]).report.reused for n in (128, 300, 260, 128)] == [0, 0, 256, 64]
    by_length = opened(made("llama dynamic"))
    assert [answer(by_length, tokens[:n]).report.reused for n in (128, 300, 260, 300)] == [0, 0, 0, 256]


def test_a_tenant_whose_name_looks_like_a_length_meets_nobody():
    engine = opened(made("phi3 longrope"))
    tokens = prompt(300).numpy()
    engine.generate(tokens, max_new_tokens=1)
    name = f"\0{SWITCH + 1}"

    assert engine.generate(tokens[:128], max_new_tokens=1, tenant=name).report.reused == 0


def test_requests_of_all_lengths_take_turns_without_touching_each_other():
    model = made("llama dynamic")
    prompts = [prompt(length, seed=length) for length in (300, 100, 200)]
    engine = opened(copy.deepcopy(model))
    answers = engine.generate_many(
        [tokens.numpy() for tokens in prompts], max_new_tokens=8, ignore_end_token=True
    )
    assert [done.tokens for done in answers] == [by_transformers(model, tokens, 8) for tokens in prompts]


def test_the_models_own_generate_is_as_before():
    model, tokens = made("llama dynamic"), prompt(300)
    expected = by_transformers(model, tokens)
    engine = opened(model)
    answer(engine, tokens[:200])

    assert by_transformers(engine.driver.model, tokens) == expected


def test_frequency_lengths_follow_the_rules():
    by_switch = positions.LengthRule(switch=100, is_by_length=False)
    by_length = positions.LengthRule(switch=200, is_by_length=True)
    rules = (by_switch, by_length)
    lengths = [positions.frequency_length(rules, n) for n in (1, 100, 101, 200, 201, 300)]
    assert lengths == [0, 0, 101, 101, 201, 300]
    assert positions.frequency_length((), 10_000) == 0


@pytest.mark.parametrize("rope", [YARN, LINEAR, DYNAMIC], ids=["yarn", "linear", "dynamic"])
def test_stretched_positions_are_answered_as_far_as_transformers_answers(rope, caplog):
    model = made(("llama", _PLAIN | {"max_position_embeddings": SWITCH, "rope_parameters": rope}))
    engine = opened(copy.deepcopy(model))
    for length in (SWITCH + 50, 4 * SWITCH + 10):
        assert "longer" not in caplog.text
        tokens = prompt(length)
        assert answer(engine, tokens).tokens == by_transformers(model, tokens)
    answer(engine, tokens)
    assert [record.getMessage() for record in caplog.records if "longer" in record.getMessage()] == [
        "llama: a sequence is longer than the 512 tokens that its configuration speaks of; it is computed as "
        "transformers computes it, and this is said once"
    ]


def test_positions_that_are_not_stretched_end_where_the_model_says():
    engine = opened(made("phi3 longrope"))
    with pytest.raises(InvalidRequestError, match=r"the model's context 512"):
        engine.generate(prompt(CONTEXT).numpy())


def test_a_driver_without_positions_is_not_asked_about_them():
    assert measure_resume(TransformersDriver(tiny_model("mamba2"))).far_positions is None
