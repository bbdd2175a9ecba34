"""Scoring continuations: the model's own numbers, in the order asked, each context computed once."""

import itertools
import math
import random

import numpy as np
import pytest
import torch
from fake_driver import FakeDriver, FakeSequence, expected_answer, fake_engine, tokens
from tiny_engine import open_engine
from transformers import AutoModelForCausalLM

from chat_tokenizer import chat_tokenizer
from families import ALL_FAMILIES, tiny_config, tiny_model, tiny_prompt
from milepost.engines.engine import Engine
from milepost.errors import ConcurrentUseError, InvalidRequestError, ModelChangedError


def joined(*parts):
    return np.concatenate(parts)


DOCUMENTS = [tokens(330, seed=1), tokens(290, seed=2)]
CONTEXTS = [joined(text, tokens(20 + number, seed=9 + number)) for text in DOCUMENTS for number in range(4)]
REQUESTS = [
    (context, [tokens(1 + (number + place) % 5, seed=50 + 7 * number + place) for place in range(4)])
    for number, context in enumerate(CONTEXTS)
]


def naive(context, continuation):
    """What the fake model says, computed in one go without an engine."""
    driver, sequence = FakeDriver(), FakeSequence()
    logits = driver.advance_all(sequence, torch.as_tensor(joined(context, continuation[:-1])))
    logprobs = torch.log_softmax(logits[len(context) - 1 :], -1)
    wanted = torch.as_tensor(np.asarray(continuation))
    picked = logprobs.gather(-1, wanted[:, None])[:, 0].tolist()
    return math.fsum(picked), bool((logprobs.argmax(-1) == wanted).all())


def computed(engine) -> int:
    return sum(count for _, count in engine.driver.calls)


@pytest.mark.parametrize("numerics", ["strict", "fast"])
@pytest.mark.parametrize("policy", ["learned", "dense:16", "none"])
def test_scores_are_the_models_in_the_order_asked(policy, numerics):
    engine = fake_engine(policy=policy, numerics=numerics)
    shuffled = random.Random(0).sample(REQUESTS, len(REQUESTS))
    for (context, continuations), scores in zip(shuffled, engine.score_many(shuffled), strict=True):
        for continuation, score in zip(continuations, scores, strict=True):
            assert (score.logprob, score.is_greedy) == naive(context, continuation)
            assert math.fsum(score.token_logprobs) == score.logprob
            assert len(score.token_logprobs) == len(continuation)
    engine.cache.check()
    assert not engine.cache._store.queue.pinned


def test_greedy_means_what_greedy_decoding_says():
    answer = expected_answer(CONTEXTS[0], 6)
    other = (*answer[:3], (answer[3] + 1) % 101, *answer[4:])
    scores = fake_engine().score(CONTEXTS[0], [answer, other, answer[:1]])
    assert [score.is_greedy for score in scores] == [True, False, True]


def test_what_contexts_share_is_computed_once_whatever_the_order():
    """Eight contexts of two documents; a state can be taken every 16 tokens."""
    engine = fake_engine(policy="tail", numerics="strict")
    engine.score_many(random.Random(1).sample(REQUESTS, len(REQUESTS)))
    continued = sum(len(each) - 1 for _, continuations in REQUESTS for each in continuations)
    shared = sum(len(text) for text in DOCUMENTS)
    own = sum(len(context) for context in CONTEXTS) - 4 * shared
    assert computed(engine) <= shared + own + continued + 16 * len(CONTEXTS)


def test_deep_trees_of_prefixes_are_resumed_at_every_branch():
    """Examples, then documents, then questions: later contexts part at three depths from the first."""
    examples = tokens(160, seed=3)
    texts = [joined(examples, tokens(160, seed=number)) for number in (4, 5)]
    contexts = [joined(text, tokens(31, seed=10 * number + place)) for number, text in enumerate(texts)
                for place in range(3)]  # fmt: skip
    engine = fake_engine(policy="tail")
    engine.score_many([(context, [[1], [2]]) for context in contexts])
    assert computed(engine) == 160 + 2 * 160 + 6 * 31


def test_one_context_asked_in_many_requests_is_computed_once():
    engine = fake_engine(policy="none")
    engine.score_many([(CONTEXTS[0], [[number]]) for number in range(10)])
    assert computed(engine) == len(CONTEXTS[0])


def test_a_continuation_of_one_token_costs_nothing():
    engine = fake_engine()
    engine.score(CONTEXTS[0], [[5], [6], [7]])
    before = computed(engine)
    engine.score(CONTEXTS[0], [[8]])
    assert before == len(CONTEXTS[0])
    assert computed(engine) - before <= 32, "all but what lies behind the last state is resumed"


def test_continuations_that_differ_in_their_last_token_are_one_run():
    engine = fake_engine(policy="none")
    found = engine.score(CONTEXTS[0], [[4, 5, number] for number in (7, 8, 9)])
    assert computed(engine) == len(CONTEXTS[0]) + 2
    for number, score in zip((7, 8, 9), found, strict=True):
        assert (score.logprob, score.is_greedy) == naive(CONTEXTS[0], np.array([4, 5, number]))


def test_a_long_continuation_is_cut_like_a_prompt():
    engine = fake_engine(policy="none", numerics="fast")
    continuation = tokens(500, seed=3)
    (score,) = engine.score([7], [continuation])
    assert (score.logprob, score.is_greedy) == naive(np.array([7]), continuation)
    assert max(count for _, count in engine.driver.calls) <= engine.segment_tokens


def test_tenants_share_nothing():
    engine = fake_engine()
    for tenant in ("one", "other"):
        engine.score(CONTEXTS[0], [[1]], tenant=tenant)
    assert engine.cache.statistics().reused == 0


def test_progress_adds_up():
    engine = fake_engine(policy="dense:16")
    seen = []
    scores = engine.score_many(REQUESTS, on_context=seen.append)
    assert [each.num_scored for each in seen] == list(itertools.accumulate(len(e.scores) for e in seen))
    told = [found for each in seen for found in each.scores]
    assert all(scores[index][place] is score for index, place, score in told)
    assert len(told) == sum(map(len, scores))
    assert seen[-1].num_scored == seen[-1].num_all == sum(len(each) for _, each in REQUESTS)
    assert sum(each.report.recomputed + each.continuation_tokens for each in seen) == computed(engine)
    alone = sum(len(context) + len(each) - 1 for context, found in REQUESTS for each in found)
    assert sum(each.separate_tokens for each in seen) == alone


# What the tests below look at is a real model's.


def made_as(family, **options):
    config = tiny_config(family)
    config.update(options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


def bits(scores):
    return [[(score.token_logprobs, score.is_greedy) for score in each] for each in scores]


def in_one_call(model, context, continuation):
    whole = torch.as_tensor(joined(context, continuation))[None]
    with torch.inference_mode():
        logits = model(whole[:, :-1]).logits[0, len(context) - 1 :]
    return torch.log_softmax(logits.float(), -1).gather(-1, whole[0, len(context) :, None])[:, 0]


def small_requests():
    base = tiny_prompt(200, seed=1)[0].numpy()
    asked = []
    for number in range(5):
        context = joined(
            base[: 200 - 40 * (number % 3)], tiny_prompt(9 + 13 * number, seed=number)[0].numpy()
        )
        asked.append(
            (context, [tiny_prompt(1 + 4 * place, seed=99 + place)[0].numpy() for place in range(3)])
        )
    asked.append((base[:7], [tiny_prompt(150, seed=77)[0].numpy()]))
    return asked


@pytest.mark.parametrize(
    ("family", "dtype"),
    [("qwen3_5", torch.float32), ("gemma3", torch.float32), ("falcon_h1", torch.bfloat16)],
)
def test_strict_scores_are_the_same_bits_cold_warm_in_any_order_and_without_a_cache(family, dtype):
    model, asked = tiny_model(family, dtype), small_requests()
    engine = open_engine(model, policy="dense:64")
    cold = bits(engine.score_many(asked))
    assert bits(engine.score_many(asked)) == cold, "warm"
    assert engine.cache.statistics().reused > 0
    assert bits(open_engine(model).score_many(asked[::-1]))[::-1] == cold, "in reverse, by another policy"
    assert bits(open_engine(model, policy="none").score_many(asked)) == cold, "without a cache"
    one_by_one = open_engine(model, policy="none")
    assert [[bits([[one_by_one.score(context, [each])[0]]])[0][0] for each in found]
            for context, found in asked] == cold, "each alone"  # fmt: skip
    # The control: a state that is not the context's own changes the bits.
    assert bits([engine.score(joined(context, context[:64]), found) for context, found in asked]) != cold


def test_a_state_that_lost_its_recurrence_changes_the_bits(model):
    """What makes the equality above worth something."""
    from milepost.engines.transformers.snapshot import zero_state

    asked = small_requests()
    engine = open_engine(model, policy="dense:64")
    cold = bits(engine.score_many(asked))
    restore = engine.driver.restore
    engine.driver.restore = lambda state, kv, **where: restore(zero_state(state), kv, **where)
    assert bits(engine.score_many(asked)) != cold


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_scores_are_those_of_one_forward_call_to_rounding(family):
    engine = open_engine(tiny_model(family))
    # Ids near the end of the vocabulary stand for images in some.
    asked = [
        (context % 200 + 3, [each % 200 + 3 for each in found]) for context, found in small_requests()[:2]
    ]
    for (context, continuations), scores in zip(asked, engine.score_many(asked), strict=True):
        for continuation, score in zip(continuations, scores, strict=True):
            wanted = in_one_call(engine.driver.model, context, continuation)
            off = (torch.tensor(score.token_logprobs) - wanted).abs() > 2e-4
            # What is attended to by rank may change in one token where two are next to equal.
            assert off.sum() <= (1 if family == "glm5_next" else 0)


def test_texts_are_split_where_harnesses_split_them():
    tokenizer = chat_tokenizer()
    engine = open_engine(made_as("qwen3_5", vocab_size=260), tokenizer=tokenizer)
    context, ids = "To be or not ", tokenizer.encode("To be or not to be")
    begin = len(tokenizer.encode("To be or not"))
    (text,) = engine.score(context, ["to be"])
    (given,) = engine.score(ids[:begin], [ids[begin:]])
    assert text == given
    assert len(text.token_logprobs) == len(" to be"), "a token a byte, the space among them"
    chat = [{"role": "user", "content": "To be?"}]
    (answer,) = engine.score(chat, ["Yes."])
    rendered = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    (same,) = engine.score(
        tokenizer.encode(rendered, add_special_tokens=False),
        [tokenizer.encode("Yes.", add_special_tokens=False)],
    )
    assert answer == same


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (([], [[1]]), "context is empty"),
        (([1], [[]]), "continuation is empty"),
        (([1], []), "no continuations"),
        (([1], [1, 2]), "token ids; give a list of such lists"),
        (([1], "text"), "give a list"),
        (([1], [[999]]), "token id 999"),
        (([1], ["text"]), "no tokenizer"),
        (([1],), "a context and its continuations"),
        ("text", "a context and its continuations"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_run(request_, said):
    engine = fake_engine()
    with pytest.raises(InvalidRequestError, match=said):
        engine.score_many([REQUESTS[0], request_])
    assert not engine.driver.calls
    for wrong in ("text", {}, 7):
        with pytest.raises(InvalidRequestError, match="give a list of pairs"):
            engine.score_many(wrong)
    with pytest.raises(InvalidRequestError, match="on_context"):
        engine.score_many([], on_context=7)
    with pytest.raises(InvalidRequestError, match="tenant"):
        engine.score([1], [[1]], tenant=7)
    assert engine.score_many([]) == []


def test_the_last_token_needs_no_place_in_the_models_context():
    limit = 192
    engine = open_engine(made_as("qwen3_5", max_position_embeddings=limit))
    context = tiny_prompt(limit, seed=4)[0].numpy()
    assert len(engine.score(context, [[5]])) == 1
    with pytest.raises(InvalidRequestError, match=f"must fit in the model's {limit:,}"):
        engine.score(context, [[5, 6]])


def test_a_model_that_is_changed_between_contexts_is_looked_at_again(model):
    """Scores of a callback's new weights are the new model's; nothing of the old one is resumed."""
    model = tiny_model("qwen3_5")
    asked = small_requests()[:2]
    engine = open_engine(model, policy="dense:64")

    def train(_):
        with torch.no_grad():
            model.get_input_embeddings().weight.mul_(1.01)

    before = bits(engine.score_many(asked))
    engine.score_many(asked[:1], on_context=train)
    after = bits(engine.score_many(asked))
    assert after != before
    assert after == bits(open_engine(model, policy="none").score_many(asked))


def test_a_model_that_is_changed_inside_a_context_is_an_error_and_loses_nothing(model):
    model = tiny_model("qwen3_5")
    engine = open_engine(model, policy="dense:64")
    branch = engine.driver.branch

    def trained(live):
        with torch.no_grad():
            model.get_input_embeddings().weight.mul_(1.01)
        return branch(live)

    engine.driver.branch = trained
    with pytest.raises(ModelChangedError):
        engine.score_many(small_requests()[:1])
    engine.driver.branch = branch
    assert bits(engine.score_many(small_requests())) == bits(
        open_engine(model, policy="none").score_many(small_requests())
    )
    engine.cache.check()
    assert not engine.cache._store.queue.pinned


def test_inside_a_turn_scoring_is_refused():
    engine = fake_engine()
    advance = engine.driver.advance

    def hooked(sequence, ids):
        with pytest.raises(ConcurrentUseError, match="in the middle of a turn"):
            engine.score([1], [[2]])
        return advance(sequence, ids)

    engine.driver.advance = hooked
    engine.score(CONTEXTS[0], [[1]])


def test_what_fails_in_a_continuation_releases_everything():
    engine = fake_engine()
    engine.driver.branch = lambda _: (_ for _ in ()).throw(RuntimeError("out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        engine.score(CONTEXTS[0], [[1, 2], [3, 4]])
    assert not engine.cache._store.queue.pinned
    assert engine.score(CONTEXTS[0], [[1, 2]])[0].logprob == naive(CONTEXTS[0], [1, 2])[0]


def test_requests_that_are_under_way_go_on_afterwards():
    engine = fake_engine()
    generation = engine.submit(CONTEXTS[1], max_new_tokens=4)
    engine.step()
    engine.score(CONTEXTS[0], [[1, 2]])
    while not generation.is_done:
        engine.step()
    assert generation.completion().tokens == expected_answer(CONTEXTS[1], 4)


def test_positions_that_hang_on_length_are_those_of_context_and_continuation():
    """A continuation that crosses the length where frequencies change is rotated as one forward call does."""
    model = made_as(
        "qwen3",
        max_position_embeddings=512,
        rope_parameters={
            "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 128,
            "short_factor": [1.0] * 8, "long_factor": [4.0] * 8,
        },
    )  # fmt: skip
    context = tiny_prompt(120, seed=1)[0].numpy()
    continuations = [tiny_prompt(count, seed=count)[0].numpy() for count in (3, 9, 10, 30)]
    scores = Engine.open(model, capacity="64MiB", segment_tokens=64).score(context, continuations)
    for continuation, score in zip(continuations, scores, strict=True):
        wanted = in_one_call(model, context, continuation)
        torch.testing.assert_close(torch.tensor(score.token_logprobs), wanted, rtol=1e-5, atol=1e-5)
