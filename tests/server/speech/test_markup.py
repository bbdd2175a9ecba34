import logging

import pytest

from chat_tokenizer import CHATML, NEEDS_USER, ONLY_PARTS, chat_tokenizer
from milepost.chat.prompt_tokenizer import PromptTokenizer
from milepost.server.speech.markup import Markup, markup_of
from milepost.server.speech.pieces import Reasoning, Text, ToolCall
from milepost.server.speech.speech import Speech
from speech_templates import ALL, JSON, PYTHON, XML

HEADER = "<|im_start|>assistant\n"


def markup(template):
    return markup_of(PromptTokenizer(chat_tokenizer(template)))


@pytest.mark.parametrize("name", ALL)
def test_the_header_of_an_answer_is_what_comes_before_its_reasoning(name):
    assert markup(ALL[name]).header == HEADER
    assert markup(ALL[name]).reads_calls


@pytest.mark.parametrize("template", [CHATML, NEEDS_USER, ONLY_PARTS])
def test_a_template_without_marks_has_none(template):
    assert markup(template) == Markup(header=HEADER)


def test_a_tokenizer_without_a_template_says_text_alone():
    assert markup(None) == Markup()
    assert Speech(None).reader([]).feed("<think>") == [Text("<think>")]


def test_a_switch_is_one_that_changes_the_prompt():
    assert markup(XML).thinking_switch == "enable_thinking"
    assert markup(JSON).thinking_switch is None
    assert markup(JSON + "{# enable_thinking is not looked at #}").thinking_switch is None


def test_the_template_is_told_of_reasoning_only_where_it_can_be():
    switched = Speech(chat_tokenizer(XML))
    assert switched.template_options(thinks=False, effort="high") == {"enable_thinking": False}
    assert switched.template_options(thinks=None) == {}
    assert Speech(chat_tokenizer(JSON)).template_options(thinks=False) == {}
    eager = Speech(chat_tokenizer(JSON + "{{ reasoning_effort }}"))
    assert eager.template_options(thinks=True, effort="low") == {"reasoning_effort": "low"}


def test_the_template_is_told_the_nearest_effort_that_it_takes():
    rule = "{% if reasoning_effort is defined and reasoning_effort not in ('low', 'high') %}"
    speech = Speech(
        chat_tokenizer(JSON + rule + "{{ raise_exception('no') }}{% endif %}{{ reasoning_effort }}")
    )
    assert [speech.template_options(thinks=None, effort=each) for each in ("none", "high", "max")] == [
        {"reasoning_effort": "low"},
        {"reasoning_effort": "high"},
        {"reasoning_effort": "high"},
    ]


def test_marks_are_found_whatever_they_are_called():
    template = XML.replace("<think>", "[THINK]").replace("</think>", "[/THINK]")
    reader = Speech(chat_tokenizer(template)).reader(
        chat_tokenizer().encode(HEADER + "[THINK]\n", add_special_tokens=False)
    )

    assert reader.feed("so\n[/THINK]\n\nyes") + reader.finish() == [Reasoning("so"), Text("yes")]


def test_a_template_that_shows_no_past_reasoning_but_knows_the_marks_has_them():
    template = CHATML + "{# <think> </think> #}"
    reader = Speech(chat_tokenizer(template)).reader([])

    assert reader.feed("<think>\nso\n</think>\n\nyes") + reader.finish() == [Reasoning("so"), Text("yes")]


OWN = {
    "start_anchor": HEADER,
    "fields": {
        "thinking": {"open": "<<", "close": ">>", "content": "text"},
        "tool_calls": {
            "open": ["CALL ", "CALLS "],
            "content": "json",
            "transform": {
                "type": "function",
                "function": {"name": "{content.tool}", "arguments": "{content.with}"},
            },
        },
        "content": {"content": "text", "close": "END"},
    },
}


def test_a_tokenizer_that_says_how_its_answers_are_marked_is_believed():
    tokenizer = chat_tokenizer(PYTHON)
    tokenizer.response_template = OWN
    prompt = tokenizer.encode(HEADER, add_special_tokens=False)
    speech = Speech(tokenizer)

    reader = speech.reader(prompt, tools=[{"type": "function", "function": {"name": "go"}}])
    pieces = reader.feed('<<so>>yes CALLS {"tool": "go", "with": {"to": 1}}') + reader.finish()

    assert pieces == [Reasoning("so"), Text("yes "), ToolCall("go", '{"to": 1}')]
    broken = speech.reader(prompt, tools=[{}])
    assert broken.feed('CALL {"tool": "go"}') + broken.finish() == [Text('CALL {"tool": "go"}')]


def test_one_that_transformers_does_not_read_is_warned_of_and_left(caplog):
    tokenizer = chat_tokenizer(PYTHON)
    tokenizer.response_template = {"fields": {"content": {"parser": "odd"}}}

    with caplog.at_level(logging.WARNING):
        found = markup_of(PromptTokenizer(tokenizer))

    assert not found.is_own
    assert found.reads_calls
    assert "not one that this transformers reads" in caplog.text
