"""The harness's model: the numbers of its own ``hf`` model, request by request."""

import random

import pytest
import torch
from lm_eval.api.model import CacheHook
from lm_eval.models.huggingface import HFLM
from small_evaluation import CONTEXT_LENGTH, DOCUMENTS, OPTIONS, byte_model, instances, scored_pairs

from chat_tokenizer import NEEDS_USER, chat_tokenizer
from milepost.engines.engine import Engine
from milepost.errors import ConfigurationError, InvalidRequestError
from milepost.lm_eval import MilepostLM


@pytest.fixture(scope="module")
def model():
    return byte_model()


def ours(model, **options):
    tokenizer = options.pop("tokenizer", None) or chat_tokenizer()
    return MilepostLM(model, tokenizer=tokenizer, **{"capacity": "64MiB", "segment_tokens": 64} | options)


def theirs(model, **options):
    tokenizer = options.pop("tokenizer", None) or chat_tokenizer()
    return HFLM(model, tokenizer=tokenizer, softmax_dtype="float32", **options)


def assert_same(found, wanted):
    assert [greedy for _, greedy in found] == [greedy for _, greedy in wanted]
    torch.testing.assert_close(
        torch.tensor([score for score, _ in found]),
        torch.tensor([score for score, _ in wanted]),
        rtol=1e-5,
        atol=1e-4,
    )


ODD_PAIRS = [
    ("", " nobody"),  # without a context
    ("", "<s>nobody"),  # that begins with what would stand for one
    ("<s>The ferry", " leaves"),  # which has its BOS already
    ("The ferry   ", "leaves"),  # whose spaces belong to the continuation
    (DOCUMENTS[0] * 3, " leaves"),  # longer than the model
    (DOCUMENTS[0] * 3, " leaves, and nobody counts"),  # and cut elsewhere
    ("x", DOCUMENTS[1] * 2),  # a continuation of many pieces
    ("Caf\u00e9 \u2014", " d\u00e9j\u00e0 vu"),
]


@pytest.mark.parametrize("family", ["qwen3_5", "gemma3"])
def test_scores_are_those_of_hf_request_by_request(family):
    model = byte_model(family)
    pairs = random.Random(0).sample([*scored_pairs(), *ODD_PAIRS], len(scored_pairs()) + len(ODD_PAIRS))
    requests = instances(*pairs)
    found = ours(model).loglikelihood(requests, disable_tqdm=True)
    assert_same(found, theirs(model).loglikelihood(requests, disable_tqdm=True))
    # The control: the same requests with their contexts one document on.
    other = instances(*((context[7:] or "b", continuation) for context, continuation in pairs))
    with pytest.raises(AssertionError):
        assert_same(ours(model).loglikelihood(other, disable_tqdm=True), found)


def test_greedy_answers_are_recognised_as_hf_does(model):
    """A continuation that the model itself says; random ones are greedy never."""
    text = "The ferry leaves"
    said = theirs(model).generate_until(
        instances((text, {"until": [], "max_gen_toks": 5})), disable_tqdm=True
    )
    requests = instances((text, said[0][:3]), (text, " nobody"))
    wanted = theirs(model).loglikelihood(requests, disable_tqdm=True)
    assert_same(ours(model).loglikelihood(requests, disable_tqdm=True), wanted)


@pytest.mark.parametrize("add_bos_token", [None, True, False])
def test_special_tokens_are_added_as_hf_adds_them(model, add_bos_token):
    mine, its = ours(model, add_bos_token=add_bos_token), theirs(model, add_bos_token=add_bos_token)
    for text in ("The ferry", "<s>The ferry", "", " "):
        for adds in (None, True, False):
            assert mine.tok_encode(text, adds) == its.tok_encode(text, adds)
    assert mine.prefix_token_id == its.prefix_token_id
    assert mine.eot_token_id == its.eot_token_id
    assert mine.max_length == its.max_length == CONTEXT_LENGTH


def test_rolling_texts_of_any_length_score_as_hfs(model):
    requests = instances(("Nobody.",), (DOCUMENTS[0] * 7,), ("",), (DOCUMENTS[1],))
    found = ours(model).loglikelihood_rolling(requests, disable_tqdm=True)
    wanted = theirs(model).loglikelihood_rolling(requests, disable_tqdm=True)
    torch.testing.assert_close(torch.tensor(found), torch.tensor(wanted), rtol=1e-5, atol=1e-3)


def test_answers_are_those_of_hf(model):
    settings = {"until": ["\n", "e"], "max_gen_toks": 12}
    requests = instances(
        *((context, settings) for context, _ in scored_pairs(OPTIONS[:1])),
        ("The ferry", {"until": ["a"], "max_gen_toks": 5, "do_sample": False, "temperature": 0.0}),
        (DOCUMENTS[0] * 3, settings),
    )
    mine = ours(model)
    found = mine.generate_until(requests, disable_tqdm=True)
    assert found == theirs(model).generate_until(requests, disable_tqdm=True)
    assert any(found)
    assert mine.savings.computed_tokens < mine.savings.separate_tokens / 1.5


def test_what_requests_share_is_computed_once(model):
    mine = ours(model)
    mine.loglikelihood(instances(*scored_pairs()), disable_tqdm=True)
    savings = mine.savings
    assert savings.num_requests == 24
    assert savings.num_contexts == 6
    assert savings.computed_tokens < savings.separate_tokens / 5
    assert "24 requests on 6 contexts" in savings.text
    assert mine.get_model_info()["milepost_savings"] == savings.as_dict()


def test_results_are_left_to_the_harnesss_own_cache_as_they_come(model):
    mine, kept = ours(model), []
    hook = CacheHook(None)
    hook.add_partial = lambda *entry: kept.append(entry)
    mine.set_cache_hook(hook)
    pairs = scored_pairs()[:4]
    scores = mine.loglikelihood(instances(*pairs), disable_tqdm=True)
    total = mine.loglikelihood_rolling(instances(("Nobody.",)), disable_tqdm=True)
    asked = ("The ferry", {"until": ["e"], "max_gen_toks": 3})
    answers = mine.generate_until(instances(asked), disable_tqdm=True)
    assert sorted(kept[:4]) == sorted(
        ("loglikelihood", pair, score) for pair, score in zip(pairs, scores, strict=True)
    )
    assert kept[4:] == [
        ("loglikelihood_rolling", ("Nobody.",), total[0]), ("generate_until", asked, answers[0])
    ]  # fmt: skip


def test_chats_are_rendered_as_hf_renders_them(model):
    mine, its = ours(model), theirs(model)
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]
    assert mine.apply_chat_template(chat) == its.apply_chat_template(chat)
    ended = [*chat, {"role": "assistant", "content": "The"}]
    assert mine.apply_chat_template(ended, False) == its.apply_chat_template(ended, False)
    assert mine.chat_template(True) == its.chat_template(True)
    assert mine.tokenizer_name == its.tokenizer_name
    wants_user = chat_tokenizer(NEEDS_USER.replace("'user'", "'nobody'"))
    with pytest.raises(Exception, match="no user query"):
        ours(model, tokenizer=wants_user).apply_chat_template(chat[1:])


def test_thoughts_are_left_out_of_answers(model):
    asked = ("The ferry", {"until": [], "max_gen_toks": 8})
    (whole,) = ours(model).generate_until(instances(asked), disable_tqdm=True)
    for end in (whole[2], chat_tokenizer().encode(whole[2], add_special_tokens=False)[0]):
        options = {"think_end_token": end, "enable_thinking": True}
        wanted = theirs(model, **options).generate_until(instances(asked), disable_tqdm=True)
        mine = ours(model, **options)
        assert mine.generate_until(instances(asked), disable_tqdm=True) == wanted
        with pytest.raises(ConfigurationError, match="enable_thinking"):
            mine.loglikelihood(instances(("a", "b")))
    with pytest.raises(ConfigurationError, match="without think_end_token"):
        ours(model, enable_thinking=True)


def test_options_that_mean_nothing_are_refused(model):
    with pytest.raises(ConfigurationError, match="trust_remote_code"):
        ours(model, trust_remote_code=True)
    with pytest.raises(ConfigurationError, match="batch_size"):
        ours(model, batch_size="many")
    with pytest.raises(TypeError, match="parallelize"):
        ours(model, parallelize=True)
    with pytest.raises(ConfigurationError, match="max_length"):
        ours(model, max_length=CONTEXT_LENGTH + 1)
    with pytest.raises(ConfigurationError, match="no tokenizer"):
        MilepostLM(Engine.open(model, capacity="64MiB"))
    mine = ours(model, batch_size="3", max_length=100)
    assert mine.engine.max_running == 3
    for options, said in (
        ({"num_beams": 4, "max_gen_toks": 9}, "'num_beams' are not known"),
        ({"do_sample": True, "max_gen_toks": 9}, "without a temperature"),
        ({"max_gen_toks": 100}, "ask for fewer"),
    ):
        with pytest.raises(InvalidRequestError, match=said):
            mine.generate_until(instances(("a", {"until": []} | options)))
    with pytest.raises(InvalidRequestError, match="give 1 to 100"):
        mine.loglikelihood(instances(("a", "b" * 101)))
