"""The engine on tiny models: how it is opened, what it says of a model, and what it refuses."""

import logging

import pytest
import torch
from tiny_engine import open_engine

from families import tiny_model, tiny_prompt
from milepost.engines.engine import Engine
from milepost.engines.transformers import admission as admission_module
from milepost.errors import CapacityError, ConfigurationError, InvalidRequestError, UnsupportedModelError
from milepost.placement import Placement, PlacementPolicy

# Tiny matrices gain nothing from more, and test processes would fight over the cores.
torch.set_num_threads(1)


def test_a_model_without_state_says_that_only_kv_is_reused_and_reuses_it(caplog):
    engine = open_engine(tiny_model("qwen3"))
    assert engine.description == "qwen3 has no recurrent state: only its KV is reused"
    assert [(r.levelno, engine.description in r.getMessage()) for r in caplog.records] == [
        (logging.WARNING, True)
    ]
    prompt = tiny_prompt(200)[0].numpy()
    answer = engine.generate(prompt, max_new_tokens=1)
    assert answer.captured_positions == (), "what keeps KV is no state"
    assert engine.generate(prompt[:150], max_new_tokens=1).report.reused == 128
    assert engine.cache.statistics().checkpoint_bytes == 0


def test_a_model_with_state_opens_without_a_warning(model, caplog):
    assert open_engine(model).generate(tiny_prompt(200)[0].numpy(), max_new_tokens=1).captured_positions
    assert [record for record in caplog.records if record.name.startswith("milepost")] == []


def test_a_hybrid_says_what_a_checkpoint_weighs(engine):
    assert (
        engine.description == "one checkpoint of qwen3_5_text takes 26.1 kB, as much as the KV of 51 tokens"
    )


def test_a_model_without_kv_says_what_a_checkpoint_weighs():
    assert "KV" not in open_engine(tiny_model("mamba2"), segment_tokens=None).description


def test_a_model_that_is_refused_is_given_back_as_it_came_and_one_that_is_open_keeps_its_fix():
    def is_fixed(model):
        return any("forward" in vars(module) for module in model.modules())

    model = tiny_model("jamba")
    with pytest.raises(CapacityError):
        open_engine(model, capacity=1)
    assert not is_fixed(model)
    engine = open_engine(model)
    with pytest.raises(CapacityError):
        open_engine(model, capacity=1)
    assert is_fixed(model), "another engine's fix stays"
    engine.close()
    assert is_fixed(model)


def test_a_sibling_answers_alike_from_a_cache_of_its_own_and_probes_nothing(model, monkeypatch):
    one = open_engine(model, policy="dense:64", numerics="fast")
    monkeypatch.setattr(admission_module, "probe_resume", lambda driver: pytest.fail("probed again"))
    other = one.sibling(capacity="32MiB", policy="none")
    prompt = tiny_prompt(200)[0].numpy()
    assert one.generate(prompt, max_new_tokens=3).tokens == other.generate(prompt, max_new_tokens=3).tokens
    assert one.cache.statistics().num_checkpoints == 4, "three of the prompt, and where the answer ends"
    assert other.cache.statistics().num_checkpoints == 0
    assert other.cache.statistics().capacity_bytes == 32 << 20
    assert (other.cache.grid, other.segment_tokens) == (one.cache.grid, one.segment_tokens)
    with pytest.raises(ConfigurationError, match="did you mean"):
        one.sibling(capacity="1MiB", policy="lerned")


class OffGrid(PlacementPolicy):
    def place(self, request):
        return Placement((65,))


def test_a_policy_off_the_rules_fails_its_request_and_nothing_else(model):
    engine = open_engine(model, policy=OffGrid())
    with pytest.raises(ConfigurationError, match=r"policy OffGrid .* on the grid of 64"):
        engine.generate(tiny_prompt(100)[0].numpy(), max_new_tokens=2)
    engine.cache.check()
    assert not engine.cache._store.queue.pinned


def test_one_text_where_several_prompts_belong_is_refused(engine):
    with pytest.raises(InvalidRequestError, match="one text"):
        engine.generate_many("the quick brown fox")
    for prompts in (5, None, {"role": "user", "content": "hi"}):
        with pytest.raises(InvalidRequestError, match="give a list of prompts"):
            engine.generate_many(prompts)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"policy": "lerned"}, "did you mean 'learned'"),
        ({"policy": "balanced:cout=3"}, "did you mean 'count'"),
        ({"policy": "balanced:0"}, "count=0"),
        ({"numerics": "exact"}, "give one of strict, fast"),
        ({"segment_tokens": 65}, "a multiple of 64"),
        ({"segment_tokens": 0}, "segment_tokens=0"),
        ({"capacity": "4 potatoes"}, "not an amount of memory"),
        ({"max_running": 0}, "max_running=0"),
        ({"max_running": "2"}, "max_running='2'"),
        ({"max_running": None}, "max_running=None"),
        ({"segment_tokens": "64"}, "segment_tokens='64'"),
        ({"segment_tokens": True}, "segment_tokens=True"),
        ({"numerics": ["strict"]}, "give one of strict, fast"),
        ({"tokenizer": "gpt2"}, "'gpt2' has no encode and decode"),
        ({"generation_config": {"num_beams": 3}}, "num_beams=3"),
    ],
)
def test_a_bad_option_of_the_engine_is_refused_by_name(model, options, says):
    with pytest.raises(ConfigurationError, match=says):
        open_engine(model, **options)


def test_a_misspelt_option_is_a_type_error(model, engine):
    with pytest.raises(TypeError, match="polcy"):
        open_engine(model, polcy="learned")
    with pytest.raises(TypeError, match="temprature"):
        engine.generate([1], temprature=1.0)
    assert not engine.step()


def test_a_budget_below_one_checkpoint_names_the_least_that_works_and_that_works(model):
    with pytest.raises(CapacityError, match=r"give at least 58,880 bytes"):
        open_engine(model, capacity=58_879)
    engine = open_engine(model, capacity=58_880, policy="tail")
    prompt = tiny_prompt(70)[0].numpy()
    engine.generate(prompt, max_new_tokens=1)
    assert engine.generate(prompt, max_new_tokens=1).report.reused == 64


def test_a_model_that_is_no_decoder_is_refused():
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    with pytest.raises(UnsupportedModelError, match="encoder-decoder"):
        Engine.open(T5ForConditionalGeneration(config).eval())
