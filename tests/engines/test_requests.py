"""Options of a request do what they say, on a hit as on a miss, and what cannot be done is refused."""

import math

import numpy as np
import pytest
import torch
from characters import Characters

from families import tiny_model, tiny_prompt
from milepost.engines.engine import Engine
from milepost.engines.requests import RequestOptions
from milepost.errors import InvalidRequestError

torch.set_num_threads(1)

PROMPT = tiny_prompt(150)[0].numpy()


@pytest.fixture(scope="module")
def model():
    return tiny_model("qwen3_5")


@pytest.fixture(scope="module")
def engine(model):
    return Engine.open(model, capacity="64MiB", segment_tokens=64, policy="dense:64", tokenizer=Characters())


def ask(engine, prompt=PROMPT, **options):
    return engine.generate(prompt, **({"max_new_tokens": 24, "ignore_end_token": True} | options))


@pytest.mark.parametrize(
    "options",
    [
        {"repetition_penalty": 1.8},
        {"presence_penalty": 2.0},
        {"frequency_penalty": -2.0},
        {"presence_penalty": 1.0, "frequency_penalty": 1.0, "repetition_penalty": 1.3},
        {"temperature": 1.0, "min_p": 0.3},
        {"temperature": 1.0, "top_k": 3, "frequency_penalty": 1.0, "seed": 5},
        {"temperature": 1.0, "top_k": 0, "top_p": 0.9},
    ],
    ids="+".join,
)
def test_an_option_changes_the_answer_and_warm_equals_cold(engine, options):
    neutral = {"temperature": 1.0, "seed": options.get("seed", 0)} if "temperature" in options else {}
    cold = ask(engine.sibling(capacity="64MiB", policy="none"), **options)
    ask(engine)
    warm = ask(engine, **options)
    assert (cold.report.reused, warm.report.reused) == (0, 128)
    assert warm.tokens == cold.tokens
    assert warm.prompt_logits_digest == cold.prompt_logits_digest == ask(engine).prompt_logits_digest
    assert warm.tokens != ask(engine, **neutral).tokens, "else it shows nothing"


def test_penalties_lower_what_they_say(engine):
    """Against the model's own logits, followed token by token."""
    plain = ask(engine, logprobs=256)
    penalised = ask(engine, logprobs=256, presence_penalty=0.5, frequency_penalty=1.5)
    seen: dict[int, int] = {}
    for step in penalised.logprobs:
        scores = dict(step.top)
        lowered = {
            token: value - (0.5 + 1.5 * seen[token] if token in seen else 0)
            for token, value in scores.items()
        }
        assert step.token == max(lowered, key=lowered.__getitem__)
        seen[step.token] = seen.get(step.token, 0) + 1
    assert max(seen.values()) <= max(plain.tokens.count(token) for token in plain.tokens)


def test_top_k_of_0_and_of_minus_1_draw_from_all_tokens_and_none_from_50(engine):
    options = {"temperature": 100.0, "max_new_tokens": 50}
    tokens = {top_k: ask(engine, top_k=top_k, **options).tokens for top_k in (0, -1, 256, 50, None)}
    assert tokens[0] == tokens[-1] == tokens[256] != tokens[50] == tokens[None]


def test_a_temperature_of_next_to_nothing_is_greedy(engine):
    for temperature in (0, 5e-324, 1e-6):
        assert ask(engine, temperature=temperature, top_p=0.5).tokens == ask(engine).tokens


def test_none_is_as_good_as_not_given(engine):
    nothing = dict.fromkeys(set(RequestOptions.__annotations__) - {"max_new_tokens", "ignore_end_token"})
    assert ask(engine, **nothing).tokens == ask(engine).tokens


def test_numbers_of_numpy_and_whole_floats_are_numbers(engine):
    given = ask(
        engine, max_new_tokens=np.int64(9), temperature=np.float32(0.5), top_k=20.0, seed=np.uint32(3)
    )
    assert given.tokens == ask(engine, max_new_tokens=9, temperature=0.5, top_k=20, seed=3).tokens


def test_log_probabilities_come_with_every_token_of_answer_and_stream(engine):
    answer = ask(engine, logprobs=2)
    assert [each.token for each in answer.logprobs] == list(answer.tokens)
    for each in answer.logprobs:
        assert each.top[0] == (each.token, each.logprob), "a greedy token is the likeliest"
        assert each.logprob < 0
        assert len(each.top) == 2
    events = engine.stream(PROMPT, max_new_tokens=24, ignore_end_token=True, logprobs=2)
    assert tuple(event.logprobs for event in events) == answer.logprobs
    assert [each.top for each in ask(engine, logprobs=0).logprobs] == [()] * 24
    assert ask(engine).logprobs is None
    assert ask(engine, logprobs=1, stop=answer.text[3]).logprobs == tuple(
        type(each)(each.token, each.logprob, each.top[:1])
        for each in answer.logprobs[: answer.text.find(answer.text[3]) + 1]
    )


def test_breakpoints_are_told_to_the_cache(engine, monkeypatch):
    seen = []
    upstream = engine.cache.acquire
    monkeypatch.setattr(
        engine.cache, "acquire", lambda *args, **given: seen.append(given) or upstream(*args, **given)
    )
    ask(engine, breakpoints=[100, np.int64(7), 100])
    assert seen[0]["breakpoints"] == (7, 100)


def test_an_answer_ends_where_the_models_context_does_and_says_so():
    model = tiny_model("qwen3_5")
    model.config.max_position_embeddings = 100
    engine = Engine.open(model, capacity="64MiB", segment_tokens=64)
    prompt = PROMPT[:97]
    answer = ask(engine, prompt, max_new_tokens=50)
    assert (len(answer.tokens), answer.finish_reason, answer.is_cut_by_context) == (3, "length", True)
    assert "the model's context ended" in answer.summary()
    for number in (1, 3):
        answer = ask(engine, prompt, max_new_tokens=number)
        assert (len(answer.tokens), answer.finish_reason, answer.is_cut_by_context) == (
            number,
            "length",
            False,
        )
    with pytest.raises(InvalidRequestError, match="the prompt has 100 tokens and the model's context 100"):
        engine.generate(PROMPT[:100])


@pytest.mark.parametrize(
    ("prompt", "options", "says"),
    [
        ([], {}, "empty"),
        ("", {}, "empty"),
        ([5, 256], {}, r"token id 256 at position 1 is outside the vocabulary \[0, 256\)"),
        ([-1], {}, "token id -1"),
        ([[1, 2]], {}, "one at a time"),
        (torch.tensor([[1, 2]]), {}, "one at a time"),
        ([0.5], {}, "integers"),
        (None, {}, "dimensions"),
        (["a", "b"], {}, "generate_many"),
        ({"input_ids": [1]}, {}, "one object with 'input_ids'"),
        ([1], {"max_new_tokens": 0}, "max_new_tokens=0; give a whole number of at least 1"),
        ([1], {"max_new_tokens": -3}, "max_new_tokens=-3"),
        ([1], {"max_new_tokens": "9"}, "max_new_tokens='9'"),
        ([1], {"max_new_tokens": True}, "max_new_tokens=True"),
        ([1], {"temperature": math.nan}, r"temperature=nan; give a finite number of 0 \(greedy\) to 100"),
        ([1], {"temperature": -1.0}, "temperature=-1.0"),
        ([1], {"temperature": 101}, "temperature=101"),
        ([1], {"temperature": "0.5"}, "temperature='0.5'"),
        ([1], {"top_k": -2}, "top_k=-2"),
        ([1], {"top_k": 1.5}, "top_k=1.5"),
        ([1], {"top_p": 0.0}, "top_p=0.0"),
        ([1], {"top_p": 1.1}, "top_p=1.1"),
        ([1], {"min_p": -0.1}, "min_p=-0.1"),
        ([1], {"top_p": 0.9}, "top_p=0.9 says what to draw from"),
        ([1], {"top_k": 5}, "top_k=5 says what to draw from"),
        ([1], {"min_p": 0.1}, "min_p=0.1 says what to draw from"),
        ([1], {"repetition_penalty": 0}, "repetition_penalty=0"),
        ([1], {"presence_penalty": 2.5}, "presence_penalty=2.5"),
        ([1], {"frequency_penalty": "1"}, "frequency_penalty='1'"),
        ([1], {"seed": 2**70}, "seed="),
        ([1], {"seed": 0.5}, "seed=0.5"),
        ([1], {"stop": ""}, "stop string is empty"),
        ([1], {"stop": [7]}, "stop strings are strings"),
        ([1], {"stop": 7}, "stop=7"),
        ([1], {"ignore_end_token": "no"}, "ignore_end_token='no'"),
        ([1], {"logprobs": -1}, "logprobs=-1"),
        ([1], {"logprobs": True}, "logprobs=True"),
        ([1], {"logprobs": 257}, "logprobs=257; give a whole number of 0 to 256"),
        ([1, 2], {"breakpoints": [3]}, "breakpoints=3; give a whole number of 1 to 2"),
        ([1, 2], {"breakpoints": 1}, "breakpoints=1; give a list"),
        ([1], {"tenant": 5}, "tenant=5"),
        ([1], {"tools": []}, "tools is for the chat template"),
        ("a", {"chat_template_kwargs": {}}, "chat_template_kwargs is for the chat template"),
        ([1], {"continue_final_message": True}, "continue_final_message is for the chat template"),
    ],
)
def test_a_bad_request_is_refused_by_name_and_nothing_is_lost(engine, prompt, options, says):
    ask(engine)
    before = engine.cache.statistics()
    with pytest.raises(InvalidRequestError, match=says):
        engine.generate(prompt, **options)
    assert not engine.step()
    assert engine.cache.statistics() == before
    assert ask(engine, max_new_tokens=1).report.reused == 128


def test_an_option_that_does_not_exist_is_a_type_error_that_lists_them(engine):
    with pytest.raises(TypeError, match=r"no option 'max_tokens'; its options are max_new_tokens, "):
        engine.generate([1], max_tokens=5)


BF16 = torch.bfloat16
ODD_TENSORS = {
    "bfloat16": torch.tensor([1, 2], dtype=BF16),
    "float": torch.tensor([1.0, 2.0]),
    "with a gradient": torch.ones(3, requires_grad=True),
    "truths": torch.tensor([True, False]),
    "complex": torch.tensor([1j]),
    "without values": torch.empty(3, dtype=torch.int64, device="meta"),
    "sparse": torch.tensor([1, 2]).to_sparse(),
    "one number": torch.tensor(3),
    "a list of bfloat16": [torch.tensor(1, dtype=BF16)],
}


@pytest.mark.parametrize("name", ODD_TENSORS)
def test_a_tensor_that_holds_no_ids_is_refused_by_name(engine, name):
    with pytest.raises(InvalidRequestError, match=r"prompt .*(give|tokenize|pass)"):
        engine.generate(ODD_TENSORS[name])
    assert engine.generate(torch.tensor([1, 2], dtype=torch.uint8), max_new_tokens=1).tokens


@pytest.mark.parametrize("prompt", [{}, [{}], [{"role": "user", "content": "a"}, {}], ({},)])
@pytest.mark.parametrize("verb", ["generate", "encode", "submit", "stream"])
def test_an_empty_object_is_no_prompt_and_no_message(engine, verb, prompt):
    with pytest.raises(
        InvalidRequestError, match=r"nothing in it; give|message [01], \{\}, |chat messages and"
    ):
        getattr(engine, verb)(prompt)


@pytest.mark.parametrize("wrong", ["5", -1, 0, 1.5, None, True, [5]])
def test_measuring_a_prefill_takes_counts_alone(engine, wrong):
    with pytest.raises(InvalidRequestError, match=r"num_tokens=.*whole number"):
        engine.measure_prefill(wrong)
    if wrong is not None:
        with pytest.raises(InvalidRequestError, match=r"segment_tokens=.*whole number"):
            engine.measure_prefill(64, segment_tokens=wrong)
    assert engine.measure_prefill(np.int64(64)) > 0


@pytest.mark.parametrize("wrong", [5, None, "a", PROMPT])
def test_only_what_was_submitted_here_is_run(engine, wrong):
    with pytest.raises(InvalidRequestError, match="give what submit returned"):
        engine.run(wrong)


def test_what_another_engine_was_given_is_not_waited_for(engine):
    other = engine.sibling(capacity="64MiB", policy="none")
    generation = other.submit(PROMPT, max_new_tokens=2)
    with pytest.raises(InvalidRequestError, match="another engine"):
        engine.run(generation)
    assert len(list(other.run(generation))) > 0
    assert list(engine.run(generation)), "what is done can be read anywhere"


@pytest.mark.parametrize("wrong", [5, None, "a", b"ab", {"a": 1}, torch.tensor(3)])
def test_several_prompts_come_in_a_list(engine, wrong):
    with pytest.raises(InvalidRequestError, match="give a list of prompts"):
        engine.generate_many(wrong)


def test_what_is_called_at_each_step_can_be_called(engine):
    with pytest.raises(InvalidRequestError, match="on_step=5; give a function"):
        engine.generate_many([PROMPT], on_step=5)
    assert not engine.step(), "nothing was queued"
