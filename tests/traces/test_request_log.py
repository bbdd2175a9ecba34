"""Logs of request bodies, through a real tokenizer and real chat templates."""

import json
from itertools import pairwise

import pytest

from chat_tokenizer import CALLS, CHATML, COUNTS_MESSAGES, NEEDS_USER, THINKS_LAST, write_chat_tokenizer
from milepost.errors import ConfigurationError, TraceFormatError
from milepost.traces import open_trace

MESSAGES = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "hé"},
    {"role": "assistant", "content": "yes"},
    {"role": "user", "content": "why"},
]


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory):
    folders = {}

    def folder(template):
        if template not in folders:
            folders[template] = write_chat_tokenizer(tmp_path_factory.mktemp("tokenizer"), template)
        return folders[template]

    return folder


@pytest.fixture
def read(tmp_path, folder_of):
    def read_lines(*records, template=CHATML, **options):
        path = tmp_path / "log.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return list(open_trace(path, **{"tokenizer": folder_of(template)} | options))

    return read_lines


@pytest.fixture
def text_of(folder_of):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder_of(CHATML))

    def text(request, start=0, stop=None):
        return tokenizer.decode(request.keys[start:stop].tolist())

    return text


def pieces(request, text_of):
    """The prompt, cut at its breakpoints."""
    cuts = [0, *request.breakpoints, request.num_tokens]
    return [text_of(request, start, stop) for start, stop in pairwise(cuts)]


def test_messages_go_through_the_template_with_its_generation_prompt(read, text_of):
    (request,) = read({"model": "m", "messages": MESSAGES, "cache_salt": "t"})
    assert request.key_tokens == 1
    assert '"t"' in request.tenant
    assert pieces(request, text_of) == [
        "<|im_start|>system\nbe kind<|im_end|>\n",
        "<|im_start|>user\nhé<|im_end|>\n",
        "<|im_start|>assistant\nyes<|im_end|>\n",
        "<|im_start|>user\nwhy<|im_end|>\n",
        "<|im_start|>assistant\n",
    ]


def test_the_tokens_are_those_of_the_tokenizer_itself(read, folder_of):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder_of(CHATML))
    tools = [{"type": "function", "function": {"name": "look"}}]
    (request,) = read({"messages": MESSAGES, "tools": tools})
    expected = tokenizer.apply_chat_template(
        MESSAGES, tools=tools, add_generation_prompt=True, return_dict=False
    )
    assert request.keys.tolist() == expected


def test_a_template_that_refuses_a_beginning_gives_the_next_messages_beginning(read, text_of):
    (request,) = read({"messages": MESSAGES}, template=NEEDS_USER)
    assert pieces(request, text_of)[:2] == [
        "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\n",
        "hé<|im_end|>\n",
    ]
    assert len(request.breakpoints) == 4


def test_a_template_that_writes_the_last_answer_differently_keeps_its_breakpoint(read, text_of):
    (request,) = read({"messages": MESSAGES}, template=THINKS_LAST)
    assert pieces(request, text_of)[2] == "<|im_start|>assistant\nyes<|im_end|>\n<|im_start|>user\n"


def test_a_template_that_rewrites_history_loses_its_breakpoints(read):
    (request,) = read({"messages": [*MESSAGES, *MESSAGES[2:]]}, template=COUNTS_MESSAGES)
    # Only the last message has a beginning that does not depend on how many follow.
    assert len(request.breakpoints) == 2


def test_a_clients_cache_points_are_breakpoints(read, text_of):
    parts = [
        {"type": "text", "text": "doc", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": " one", "prompt_cache_breakpoint": {"mode": "explicit"}},
        {"type": "text", "text": " why", "cache_control": {"type": "ephemeral"}},
    ]
    (request,) = read({"messages": [{"role": "user", "content": parts}]})
    assert pieces(request, text_of) == [
        "<|im_start|>user\ndoc",
        " one",
        " why<|im_end|>\n",
        "<|im_start|>assistant\n",
    ]


def test_a_top_level_system_is_the_first_message(read, text_of):
    (request,) = read({"system": [{"type": "text", "text": "be kind"}], "messages": MESSAGES[1:]})
    assert text_of(request).startswith("<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nhé")


def test_images_match_where_they_are_equal_and_only_there(read):
    def asking(image, **marks):
        part = {"type": "image_url", "image_url": {"url": image}} | marks
        return {"messages": [{"role": "user", "content": [part, {"type": "text", "text": "?"}]}]}

    first, same, other = read(
        asking("data:a"), asking("data:a", cache_control={"type": "ephemeral"}), asking("data:b")
    )
    assert first.keys.tolist() == same.keys.tolist() != other.keys.tolist()


def test_arguments_of_tool_calls_are_objects_to_the_template(read, text_of):
    def calling(arguments):
        call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": arguments}}
        return {
            "messages": [
                MESSAGES[1],
                {"role": "assistant", "content": None, "tool_calls": [call]},
                MESSAGES[3],
            ]
        }

    written, parsed = read(calling('{"at": "door"}'), calling({"at": "door"}), template=CALLS)
    assert written.keys.tolist() == parsed.keys.tolist()
    assert "assistant\n(at=door)<|im_end|>" in text_of(written)


def test_options_of_the_template_are_passed_on(read, text_of):
    shouting = "{% for m in messages %}{{ m.content | upper if loud else m.content }}{% endfor %}"
    loud, quiet = read(
        {"messages": MESSAGES[1:2], "chat_template_kwargs": {"loud": True}},
        {"messages": MESSAGES[1:2]},
        template=shouting,
    )
    assert (text_of(loud), text_of(quiet)) == ("HÉ", "hé")


@pytest.mark.parametrize("name", ["prompt", "text"])
def test_a_bare_prompt_is_encoded_with_the_tokenizers_own_special_tokens(read, text_of, name):
    (request,) = read({name: "once upon"})
    assert text_of(request) == "<s>once upon"
    assert request.breakpoints == ()


def test_a_prompt_of_token_ids_needs_no_tokenizer(read):
    (request,) = read({"prompt": [5, 6], "max_tokens": 3}, tokenizer=None)
    assert request.keys.tolist() == [5, 6]


@pytest.mark.parametrize("wrap", [dict, json.dumps])
@pytest.mark.parametrize("name", ["request", "body"])
def test_a_logs_envelope_is_opened(read, name, wrap):
    (request,) = read(
        {
            "timestamp": 3.5,
            "session_id": "s",
            "request_id": "r",
            name: wrap({"messages": MESSAGES, "cache_salt": "t"}),
            "response": {"usage": {"completion_tokens": 9}},
        }
    )
    assert (request.arrival_seconds, request.session, request.request_id) == (3.5, "s", "r")
    assert (request.tenant, request.output_tokens) == ("t", 9)


def test_batch_files_are_read(read):
    asked, answered = read(
        {
            "custom_id": "a",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "m", "messages": MESSAGES},
        },
        {
            "custom_id": "b",
            "request": {"method": "POST", "body": {"messages": MESSAGES}},
            "response": {"status_code": 200, "body": {"usage": {"output_tokens": 4}}},
        },
    )
    assert (asked.request_id, answered.request_id) == ("a", "b")
    assert (asked.output_tokens, answered.output_tokens) == (None, 4)
    assert asked.keys.tolist() == answered.keys.tolist()


def test_a_tokenizer_json_will_do_for_prompts_and_its_folder_for_messages(read, folder_of, tmp_path):
    alone = tmp_path / "tokenizer.json"
    alone.write_bytes((folder_of(CHATML) / "tokenizer.json").read_bytes())
    (request,) = read({"prompt": "once"}, tokenizer=alone)
    assert request.num_tokens == 5
    with pytest.raises(ConfigurationError, match=r"no chat template.*--tokenizer"):
        read({"messages": MESSAGES}, tokenizer=alone)
    beside = folder_of(CHATML) / "tokenizer.json"
    assert read({"messages": MESSAGES}, tokenizer=beside) == read({"messages": MESSAGES})


def test_a_tokenizer_without_a_chat_template_is_an_error_that_skipping_does_not_hide(read):
    with pytest.raises(ConfigurationError, match="no chat template"):
        read({"messages": MESSAGES}, template=None, skip_bad_lines=True)


def test_text_without_a_tokenizer_is_an_error_that_names_the_option(read):
    with pytest.raises(ConfigurationError, match=r"no tokenizer was named.*--tokenizer"):
        read({"messages": MESSAGES}, tokenizer=None)


def test_a_tokenizer_that_is_none_is_an_error(read, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        read({"prompt": "a"}, tokenizer=tmp_path / "empty")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"messages": []}, "at least one"),
        ({"messages": "hi"}, "list of messages"),
        ({"messages": None}, "list of messages"),
        ({"messages": ["hi"]}, "has no role"),
        ({"messages": [{"content": "hi"}]}, "has no role"),
        ({"messages": [{"role": 1, "content": "hi"}]}, "has no role"),
        ({"messages": [{"role": "user", "content": 5}]}, "neither a text nor a list"),
        ({"messages": [{"role": "user", "content": [5]}]}, "neither a text nor an object"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "has no text"),
        ({"messages": [{"role": "assistant", "tool_calls": 5}]}, "tool_calls 5 are no list"),
        ({"messages": [{"role": "system", "content": "a"}]}, "chat template of .* refuses.*no user query"),
        (
            {"messages": [{"role": "user", "content": "a"}], "chat_template_kwargs": 5},
            "chat_template_kwargs=5",
        ),
        (
            {"messages": [{"role": "user", "content": "a"}], "chat_template_kwargs": {"tokenize": 1}},
            "no variable of a template",
        ),
        ({"prompt": None}, "the prompt is None"),
        ({"prompt": []}, r"the prompt is \[\]"),
        ({"prompt": ["a", ""]}, "batch of 2 prompts with ''"),
        ({"prompt": ["a", [1]]}, r"batch of 2 prompts with \[1\]"),
        ({"prompt": [1, 2.5]}, "whole numbers"),
        ({"request": 5}, "request body is 5"),
        ({"request": "{"}, "request body is not JSON"),
        ({"body": {"inputs": {"a": 1}}}, "the prompt is {'a': 1}"),
        ({"prompt": "a", "cache_salt": []}, "cache_salt"),
        (
            {"request": {"prompt": "a"}, "response": {"usage": {"completion_tokens": -1}}},
            "completion_tokens=-1",
        ),
    ],
)
def test_a_malformed_body_is_a_bad_line(read, line, says):
    good = {"prompt": "a"}
    with pytest.raises(TraceFormatError, match=rf"line 2: .*{says}"):
        read(good, line, template=NEEDS_USER)
    assert len(read(good, line, good, template=NEEDS_USER, skip_bad_lines=True)) == 2


def test_an_empty_prompt_is_a_bad_line_where_the_tokenizer_adds_nothing(read):
    with pytest.raises(TraceFormatError, match="prompt is empty"):
        read({"messages": MESSAGES[:1]}, template="{# nothing #}")
