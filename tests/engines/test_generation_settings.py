"""A model's generation_config means here what it means to transformers' own ``generate``."""

import pytest
import torch
from transformers import GenerationConfig

from families import tiny_model, tiny_prompt
from milepost.engines.engine import Engine
from milepost.engines.generation_settings import GenerationSettings
from milepost.engines.sampling import Sampler
from milepost.errors import ConfigurationError, InvalidRequestError
from milepost.tokens import as_tokens

torch.set_num_threads(1)

PROMPT = tiny_prompt(150)[0].numpy()
NUM_NEW = 16


@pytest.fixture(scope="module")
def model():
    return tiny_model("qwen3_5")


@pytest.fixture(scope="module")
def engine(model):
    return Engine.open(model, capacity="64MiB", segment_tokens=64, policy="dense:64")


@pytest.fixture
def plain(engine):
    """What the model answers of itself."""
    return engine.generate(PROMPT, max_new_tokens=NUM_NEW, ignore_end_token=True).tokens


@pytest.fixture
def configure(model, monkeypatch):
    """Change settings of the model for one test."""

    def change(**settings):
        for name, value in settings.items():
            monkeypatch.setattr(model.generation_config, name, value, raising=False)

    return change


def upstream(model, prompt=PROMPT, **options):
    """What ``generate`` of transformers answers."""
    ids = torch.from_numpy(prompt.astype("int64"))[None]
    options = {"max_new_tokens": NUM_NEW} | options
    with torch.inference_mode():
        answer = model.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **options)
    return tuple(answer[0, ids.shape[1] :].tolist())


# Settings of greedy answers. Where one names tokens, they are those of the plain answer.
GREEDY = {
    "repetition_penalty": lambda plain: 1.8,
    "encoder_repetition_penalty": lambda plain: 0.3,
    "no_repeat_ngram_size": lambda plain: 1,
    "encoder_no_repeat_ngram_size": lambda plain: 1,
    "suppress_tokens": lambda plain: [plain[0], plain[3]],
    "begin_suppress_tokens": lambda plain: [plain[0]],
    "bad_words_ids": lambda plain: [[plain[0]], [plain[1], plain[2]]],
    "sequence_bias": lambda plain: [[[plain[1]], -9.0], [[7], 3.0]],
    "forced_eos_token_id": lambda plain: 9,
    "guidance_scale": lambda plain: 2.5,
    "remove_invalid_values": lambda plain: True,
    "renormalize_logits": lambda plain: True,
    "watermarking_config": lambda plain: {"bias": 9.0, "seeding_scheme": "selfhash"},
}
CHANGES_NOTHING = {"remove_invalid_values", "renormalize_logits"}


@pytest.mark.parametrize("name", GREEDY)
def test_a_greedy_answer_is_that_of_generate_cold_and_warm(engine, model, configure, plain, name):
    configure(**{name: GREEDY[name](plain)})
    expected = upstream(model, eos_token_id=None)
    assert (expected == plain) == (name in CHANGES_NOTHING), "else it shows nothing"
    warm = engine.generate(PROMPT, max_new_tokens=NUM_NEW, ignore_end_token=True)
    assert warm.report.reused == 128
    assert warm.tokens == expected
    cold = engine.sibling(capacity="64MiB", policy="none")
    answer = cold.generate(PROMPT, max_new_tokens=NUM_NEW, ignore_end_token=True)
    assert answer.tokens == expected
    assert answer.prompt_logits_digest == warm.prompt_logits_digest


@pytest.mark.parametrize(
    "settings",
    [
        {"min_new_tokens": 12},
        {"min_length": 150 + 12},
        {"min_length": 150 + 30, "min_new_tokens": 12},
        {"exponential_decay_length_penalty": (1, 20.0)},
    ],
)
def test_how_long_an_answer_gets_is_as_in_generate(engine, model, configure, plain, settings):
    end = plain[9]
    configure(eos_token_id=end, **settings)
    expected = upstream(model)
    answer = engine.generate(PROMPT, max_new_tokens=NUM_NEW)
    ended = expected[-1] == end
    assert answer.tokens == expected[: len(expected) - ended]
    assert answer.finish_reason == ("stop" if ended else "length")
    configure(**dict.fromkeys(settings))
    assert upstream(model) != expected, "else it shows nothing"


SAMPLED = [
    {},
    {"temperature": 0.6},
    {"top_k": 5},
    {"top_p": 0.6},
    {"min_p": 0.2},
    {"typical_p": 0.6},
    {"epsilon_cutoff": 0.02},
    {"eta_cutoff": 0.1},
    {"top_h": 0.5},
    {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "repetition_penalty": 1.5, "renormalize_logits": True},
]


@pytest.mark.parametrize("settings", SAMPLED, ids=lambda settings: "+".join(settings) or "do_sample")
def test_a_drawn_answer_has_the_probabilities_of_generate(engine, model, configure, monkeypatch, settings):
    configure(do_sample=True, **settings)
    ids = torch.from_numpy(PROMPT.astype("int64"))[None]
    torch.manual_seed(3)
    drawn = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        pad_token_id=0,
        eos_token_id=None,
        max_new_tokens=6,
        return_dict_in_generate=True,
        output_scores=True,
    )
    tokens = drawn.sequences[0, ids.shape[1] :].tolist()
    seen = []

    def follow(self, scores):
        assert self._sampling.draws
        seen.append(scores.clone())
        return tokens[len(seen) - 1]

    monkeypatch.setattr(Sampler, "_choose", follow)
    engine.generate(PROMPT, max_new_tokens=6, ignore_end_token=True)
    for mine, theirs in zip(seen, drawn.scores, strict=True):
        assert torch.equal(mine.isinf(), theirs[0].isinf())
        assert torch.allclose(mine, theirs[0], atol=1e-4)
    num_allowed = [int(mine.isfinite().sum()) for mine in seen]
    # transformers draws from 50 tokens unless told otherwise.
    assert max(num_allowed) == 50 if settings in ({}, {"temperature": 0.6}) else max(num_allowed) <= 50


def test_a_model_that_samples_does_so_unless_a_request_says_zero(engine, configure, plain):
    configure(do_sample=True, temperature=3.0)
    options = {"max_new_tokens": NUM_NEW, "ignore_end_token": True}
    drawn = engine.generate(PROMPT, **options)
    assert drawn.tokens != plain
    assert drawn.tokens == engine.generate(PROMPT, **options).tokens, "the seed is a request's own"
    assert drawn.tokens != engine.generate(PROMPT, seed=1, **options).tokens
    assert engine.generate(PROMPT, temperature=0, **options).tokens == plain


def test_a_request_overrides_the_model(engine, configure, plain):
    configure(repetition_penalty=1.8, max_new_tokens=3)
    assert len(engine.generate(PROMPT, ignore_end_token=True).tokens) == 3
    answer = engine.generate(PROMPT, max_new_tokens=NUM_NEW, repetition_penalty=1.0, ignore_end_token=True)
    assert answer.tokens == plain


def test_end_tokens_are_those_of_generation_config_whatever_config_says(engine, model, configure, plain):
    model.config.eos_token_id = plain[3]
    try:
        assert len(engine.generate(PROMPT, max_new_tokens=NUM_NEW).tokens) == NUM_NEW
        configure(eos_token_id=None)
        assert len(engine.generate(PROMPT, max_new_tokens=NUM_NEW).tokens) == NUM_NEW
    finally:
        model.config.eos_token_id = 2
    configure(eos_token_id=[2, plain[5]])
    assert engine.generate(PROMPT, max_new_tokens=NUM_NEW).tokens == plain[: plain.index(plain[5])]


def test_the_length_is_the_requests_else_the_models_else_128(engine, configure):
    def length(**options):
        return len(engine.generate(PROMPT, ignore_end_token=True, **options).tokens)

    assert length() == 128
    configure(max_length=155)
    assert (length(), length(max_new_tokens=7)) == (5, 7)
    configure(max_new_tokens=4)
    assert length() == 4
    configure(max_new_tokens=None, max_length=150)
    with pytest.raises(InvalidRequestError, match=r"max_length=150 .* leaves none for the answer"):
        length()


def test_settings_can_be_replaced_where_the_model_is_opened(model, configure, plain):
    configure(num_beams=4)
    with pytest.raises(ConfigurationError, match=r"num_beams=4.*generation_config=\{'num_beams': 1\}"):
        GenerationSettings(model)
    for overrides in (
        {"num_beams": 1, "repetition_penalty": 1.8},
        GenerationConfig(num_beams=1, repetition_penalty=1.8),
    ):
        settings = GenerationSettings(model, overrides=overrides)
        answer = settings.for_request(as_tokens(PROMPT), {}, context_length=None)
        assert [type(each).__name__ for each in answer.processors] == ["RepetitionPenaltyLogitsProcessor"]


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"repetition_penlty": 1.1}, "did you mean 'repetition_penalty'"),
        ({"_from_model_config": True}, "no setting '_from_model_config'"),
        ("greedy", "give settings by name"),
    ],
)
def test_a_setting_that_does_not_exist_is_an_error(model, overrides, says):
    with pytest.raises(ConfigurationError, match=says):
        GenerationSettings(model, overrides=overrides)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 2},
        {"num_beam_groups": 2},
        {"num_return_sequences": 2, "do_sample": True},
        {"penalty_alpha": 0.6, "top_k": 4},
        {"prompt_lookup_num_tokens": 3},
        {"assistant_early_exit": 2},
        {"use_mtp": True},
        {"dola_layers": "high"},
        {"constraints": ["x"]},
        {"force_words_ids": [[3]]},
        {"token_healing": True},
        {"max_time": 1.0},
        {"custom_generate": "someone/something"},
        {"cache_implementation": "quantized"},
        {"return_dict_in_generate": True},
        {"output_scores": True},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_what_cannot_be_honoured_is_refused_by_name(engine, model, configure, settings):
    configure(**settings)
    with pytest.raises(InvalidRequestError, match=next(iter(settings))):
        engine.generate(PROMPT, max_new_tokens=1)
    assert not engine.step()
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        GenerationSettings(model)


@pytest.mark.parametrize("implementation", ["dynamic", "hybrid"])
def test_a_cache_that_holds_what_ours_holds_is_no_reason_to_refuse(engine, configure, implementation):
    configure(cache_implementation=implementation, use_cache=False)
    assert engine.generate(PROMPT, max_new_tokens=1).finish_reason


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"repetition_penalty": -1.0}, "strictly positive"),
        ({"bad_words_ids": [[-3]]}, "transformers refuses this generation_config"),
        ({"do_sample": True, "top_p": 7.0, "temperature": 0.0}, "transformers refuses"),
        ({"exponential_decay_length_penalty": (2, 1.5), "eos_token_id": None}, "no token ends this answer"),
    ],
)
def test_a_setting_that_transformers_refuses_is_refused_in_its_words(engine, configure, settings, says):
    configure(**settings)
    with pytest.raises(InvalidRequestError, match=says):
        engine.generate(PROMPT, max_new_tokens=1)
    assert not engine.step()


def test_stop_strings_of_the_model_end_an_answer_and_a_requests_take_their_place(model, configure):
    from characters import Characters

    engine = Engine.open(model, capacity="64MiB", tokenizer=Characters(), segment_tokens=64)
    options = {"max_new_tokens": NUM_NEW, "ignore_end_token": True}
    whole = engine.generate(PROMPT, **options).text
    configure(stop_strings=whole[4:6])
    assert engine.generate(PROMPT, **options).text == whole[: whole.find(whole[4:6])]
    assert engine.generate(PROMPT, stop=[], **options).text == whole
    assert engine.generate(PROMPT, stop=whole[8:10], **options).text == whole[: whole.find(whole[8:10])]


def test_stop_strings_of_a_model_without_a_tokenizer_are_an_error(engine, configure):
    configure(stop_strings=["."])
    with pytest.raises(InvalidRequestError, match="need a tokenizer"):
        engine.generate(PROMPT)
