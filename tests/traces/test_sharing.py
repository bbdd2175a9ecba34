"""Who shares with whom: requests of different models, adapters and salts share nothing."""

from itertools import combinations

import pytest

from milepost.simulator import simulate

PROMPTS = {
    "token ids": {"prompt_token_ids": list(range(640))},
    "a prompt of token ids": {"prompt": list(range(640))},
    "Mooncake": {"timestamp": 0, "input_length": 640, "output_length": 1, "hash_ids": [1, 2]},
    "Bailian": {"chat_id": 1, "parent_chat_id": -1, "input_length": 640, "hash_ids": list(range(40))},
    "ours": {"input_length": 640, "block_size": 64, "hash_ids": list(range(10))},
    "a text": {"prompt": "word " * 128},
    "messages": {"messages": [{"role": "user", "content": "word " * 128}]},
    "a wrapped body": {"request": {"body": {"prompt": "word " * 128}}},
    "an inner model": {"body": {"model": "alias", "prompt": "word " * 128}},
}
DIFFERENCES = {
    "models": ({"model": "a"}, {"model": "b"}),
    "a model and none": ({"model": "a"}, {}),
    "model names": ({"model_name": "a"}, {"model_name": "b"}),
    "camel case": ({"modelName": "a"}, {"modelName": "b"}),
    "served models": ({"served_model": "a"}, {"served_model": "b"}),
    "paths of models": ({"model_path": "/a"}, {"model_path": "/b"}),
    "adapters of one base": (
        {"base_model": "a", "lora_adapter_name": "x"},
        {"base_model": "a", "lora_adapter_name": "y"},
    ),
    "bases": ({"base_model": "a", "adapter_id": "x"}, {"base_model": "b", "adapter_id": "x"}),
    "model ids": ({"model_id": "a"}, {"model_id": 2}),
    "deployments of one model": ({"model": "a", "model_id": "1"}, {"model": "a", "model_id": "2"}),
    "an adapter and none": ({"model": "a", "lora": "x"}, {"model": "a"}),
    "adapters": ({"lora_name": "x"}, {"lora_name": "y"}),
    "adapters as objects": (
        {"lora_request": {"lora_name": "x", "lora_int_id": 1}},
        {"lora_request": {"lora_name": "y", "lora_int_id": 2}},
    ),
    "adapters by another name": ({"adapter": "x"}, {"adapter": "y"}),
    "adapters by number": ({"lora_int_id": 1}, {"lora_int_id": 2}),
    "an adapter's path": ({"lora_path": "/a"}, {"lora_path": "/b"}),
    "lists of adapters": ({"adapters": ["x"]}, {"adapters": ["x", "y"]}),
    "salts": ({"cache_salt": "a"}, {"cache_salt": "b"}),
    "a salt and none": ({"cache_salt": "a"}, {}),
    "SGLang's salts": ({"extra_key": "a"}, {"extra_key": "b"}),
    "a label of the line": ({"metadata": {"model": "a"}}, {"metadata": {"model": "b"}}),
    "an adapter in the client's extras": ({"extra_body": {"lora": "x"}}, {"extra_body": {"lora": "y"}}),
    "a salt in the client's extras": (
        {"extra_body": {"cache_salt": "x"}},
        {"extra_body": {"cache_salt": "y"}},
    ),
    "tenants": ({"tenant": "a"}, {"tenant": "b"}),
    "salts of one model": ({"model": "a", "cache_salt": "s"}, {"model": "a", "cache_salt": "t"}),
    "models of one salt": ({"model": "a", "cache_salt": "s"}, {"model": "b", "cache_salt": "s"}),
}
THE_SAME = {
    "nothing": ({}, {}),
    "a model": ({"model": "a"}, {"model": "a"}),
    "no adapter in several words": (
        {"model": "a", "lora": None},
        {"model": "a", "lora": "none", "adapter": ""},
    ),
    "no adapter as a number": ({"lora_int_id": 0}, {}),
    "an adapter, its fields in another order": (
        {"lora_request": {"name": "x", "id": 1}},
        {"lora_request": {"id": 1, "name": "x"}},
    ),
    # It routes a request to a machine; equal prefixes are shared there.
    "keys of routing": ({"prompt_cache_key": "a"}, {"prompt_cache_key": "b"}),
    "labels of other things": ({"metadata": {"tenant": "a"}}, {"metadata": {"tenant": "b"}}),
    "users": ({"user": "a"}, {"user": "b"}),
}


def reused_tokens(trace) -> int:
    return simulate(
        trace, policy="dense:64", capacity_kv_tokens=100_000, checkpoint_kv_tokens=1, grid=None
    ).reused_tokens


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("difference", DIFFERENCES)
def test_what_differs_in_who_serves_it_shares_nothing(log, prompt, difference):
    first, second = (PROMPTS[prompt] | fields for fields in DIFFERENCES[difference])
    one, other = log(first, second)
    assert one.tenant != other.tenant
    assert one.keys.tolist() == other.keys.tolist()


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("sameness", THE_SAME)
def test_what_is_served_by_the_same_shares_its_prompt(log, prompt, sameness):
    first, second = (PROMPTS[prompt] | fields for fields in THE_SAME[sameness])
    one, other = log(first, second)
    assert one.tenant == other.tenant


@pytest.mark.parametrize("prompt", ["token ids", "Mooncake", "Bailian"])
def test_a_replay_reuses_nothing_across_models_and_nearly_all_within_one(log, prompt):
    assert reused_tokens(log(*(PROMPTS[prompt] | {"model": name} for name in "ab"))) == 0
    assert reused_tokens(log(*(PROMPTS[prompt] | {"model": name} for name in "aa"))) >= 512


def test_the_model_may_be_named_on_any_step_to_the_body_and_every_step_counts(log):
    prompt = {"prompt": [1, 2, 3]}
    lines = [
        {"body": {"model": "a", **prompt}},
        {"body": {"model": "b", **prompt}},
        {"model": "b", "body": {"model": "a", **prompt}},
        {"request": {"model": "c", "body": prompt}},
        {"body": prompt, "response": {"model": "d"}},
        {"body": prompt, "response": {"body": {"model": "e"}}},
        {"kwargs": prompt | {"extra_body": {"lora_name": "x"}}},
    ]
    tenants = [request.tenant for request in log(*lines)]
    assert len(set(tenants)) == len(lines)


def test_an_alias_of_the_answer_does_not_split_what_the_requests_name(log):
    lines = [{"model": "m", "prompt": [1], "response": {"model": f"m-2026-0{month}"}} for month in (1, 2)]
    one, other = log(*lines)
    assert one.tenant == other.tenant


def test_no_salt_passes_for_a_model_nor_two_for_one(log):
    salts = ["", "a", '{"cache_salt":[],"model":["a"],"adapter":[]}', "a / b"]
    lines = [{"prompt": [1], **({"cache_salt": salt} if salt else {})} for salt in salts]
    lines += [{"prompt": [1], "model": "a", **({"cache_salt": salt} if salt else {})} for salt in salts]
    tenants = [request.tenant for request in log(*lines)]
    same = [
        (one, other) for one, other in combinations(range(len(lines)), 2) if tenants[one] == tenants[other]
    ]
    # A salt that is written as we write a tenant is a forgery that only its own tenant could gain by.
    assert same == [(2, 4)]


def test_the_summary_says_how_many_models_there_were(log):
    trace = log(*({"model": name, "prompt": [1]} for name in ("a", "b", "a")), {"prompt": [1]})
    list(trace)
    assert trace.facts.models == {"a": 2, "b": 1, "(none named)": 1}
    assert trace.facts.as_json()["num_models"] == 3
    (note,) = trace.facts.notes()
    assert note.startswith("3 models or adapters (requests of a: 2, ")
    assert note.endswith(") share the memory and nothing else")


def test_the_summary_says_how_many_salts_there_were(log):
    trace = log(*({"cache_salt": salt, "prompt": [1]} for salt in "aab"), {"prompt": [1]})
    list(trace)
    assert trace.facts.as_json()["num_salts"] == 2
    assert trace.facts.notes() == ["2 salts or tenants share the memory and nothing else"]


def test_of_one_model_or_none_there_is_nothing_to_say(log):
    for lines in ([{"model": "a", "prompt": [1]}] * 2, [{"prompt": [1]}] * 2):
        trace = log(*lines)
        list(trace)
        assert (trace.facts.num_models, trace.facts.notes()) == (1, [])


@pytest.mark.parametrize("field", ["cache_salt", "tenant", "extra_key"])
def test_a_salt_that_is_no_string_is_a_bad_line(log, field):
    from milepost.errors import TraceFormatError

    with pytest.raises(TraceFormatError, match=f"line 1: {field}="):
        list(log({"prompt": [1], field: {"a": 1}}))
