import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat_tokenizer import CHATML, chat_tokenizer
from milepost.server.speech.pieces import Reasoning, Text, ToolCall, joined
from milepost.server.speech.speech import Speech
from speech_templates import ALL, TOOLS

SPEECHES = {name: Speech(chat_tokenizer(template)) for name, template in ALL.items()}
HEADER = "<|im_start|>assistant\n"


def read(name, text, *, portions=None, tools=TOOLS, prompt=HEADER):
    speech = SPEECHES[name]
    reader = speech.reader(chat_tokenizer().encode(prompt, add_special_tokens=False), tools=tools)
    pieces = [piece for portion in (portions or [text]) for piece in reader.feed(portion)]
    return joined([*pieces, *reader.finish()])


CALLS = {
    "xml": "<tool_call>\n<function=read>\n<parameter=path>\na.py\n</parameter>\n"
    "<parameter=lines>\n3\n</parameter>\n</function>\n</tool_call>",
    "json": '<tool_call>\n{"name": "read", "arguments": {"path": "a.py", "lines": 3}}\n</tool_call>',
    "python": "<|tool_call_start|>[read(path='a.py', lines=3)]<|tool_call_end|>",
    "sections": "<|tool_calls_section_begin|><|tool_call_begin|>functions.read:7<|tool_call_argument_begin|>"
    '{"path": "a.py", "lines": 3}<|tool_call_end|><|tool_calls_section_end|>',
    "list": '<TOOLCALL>[{"name": "read", "arguments": {"path": "a.py", "lines": 3}}]</TOOLCALL>',
}
THOUGHT = dict.fromkeys(CALLS, "<think>\nwhich file?\n</think>\n\n") | {
    "python": "<think>which file?</think>",
    "sections": "<think>which file?</think>",
    "list": "<think>\nwhich file?\n</think>\n",
}


@pytest.mark.parametrize("name", CALLS)
def test_an_answer_is_reasoning_then_text_then_a_call(name):
    pieces = read(name, THOUGHT[name] + "I look." + CALLS[name])

    assert pieces[:2] == [Reasoning("which file?"), Text("I look.")]
    assert pieces[2].name == "read"
    assert json.loads(pieces[2].arguments) == {"path": "a.py", "lines": 3}
    assert pieces[2].id == ("functions.read:7" if name == "sections" else None)
    assert len(pieces) == 3


@pytest.mark.parametrize("name", CALLS)
def test_reasoning_that_the_prompt_began_goes_on(name):
    begun, _, rest = THOUGHT[name].partition("which")

    assert read(name, "which" + rest + "Hello.", prompt=HEADER + begun) == [
        Reasoning("which file?"),
        Text("Hello."),
    ]


@pytest.mark.parametrize("name", CALLS)
def test_two_calls_are_two_and_blanks_around_them_are_no_text(name):
    pieces = read(name, CALLS[name] + "\n" + CALLS[name] + "\n")

    assert [piece.name for piece in pieces] == ["read", "read"]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("cut", [3, 12, "a.py", "lines", "3"])
def test_a_call_that_was_cut_off_is_text(name, cut):
    written = "I look." + CALLS[name][: CALLS[name].index(cut) + 1 if isinstance(cut, str) else cut]

    assert read(name, written) == [Text(written)]


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("xml", "<tool_call>\n<function=read>\nno parameter\n</function>\n</tool_call>"),
        ("xml", "<tool_call>\n<function=read>\n<parameter=path>\na.py\n</function>\n</tool_call>"),
        (
            "xml",
            "<tool_call>\n<function=read>\n<parameter=path>\na\n</parameter>\n<parameter=path>\nb\n</parameter>\n"
            "</function>\n</tool_call>",
        ),
        ("json", "<tool_call>\n{'name': 'read'}\n</tool_call>"),
        ("json", '<tool_call>\n{"name": "read", "arguments": [1]}\n</tool_call>'),
        ("json", '<tool_call>\n{"name": 3, "arguments": {}}\n</tool_call>'),
        ("json", '<tool_call>\n"read"\n</tool_call>'),
        ("json", '<tool_call>\n{"arguments": {}}\n</tool_call>'),
        ("json", '<tool_call>\n{"name": "read", "arguments": {"lines": NaN}}\n</tool_call>'),
        ("json", '<tool_call>\n{"name": "read", "arguments": {"path": "\\ud800"}}\n</tool_call>'),
        ("json", "<tool_call>" + '{"name": "read", "arguments": ' + "[" * 100_000 + "</tool_call>"),
        ("json", '<tool_call>\n{"name": "read", "parameters": {"path": "a.py"}}\n</tool_call>'),
        ("json", "<tool_call></tool_call>"),
        ("python", "<|tool_call_start|>[read('a.py')]<|tool_call_end|>"),
        ("python", "<|tool_call_start|>[]<|tool_call_end|>"),
        ("sections", "<|tool_call_begin|>functions.read:0<|tool_call_argument_begin|>{<|tool_call_end|>"),
        ("list", "<TOOLCALL>[1, 2]</TOOLCALL>"),
    ],
)
def test_a_call_that_cannot_be_read_is_text_whole(name, broken):
    assert read(name, "So: " + broken + " Done.") == [Text("So: " + broken + " Done.")]


def test_without_tools_the_marks_of_a_call_are_text():
    assert read("json", CALLS["json"], tools=None) == [Text(CALLS["json"])]


def test_a_value_in_xml_keeps_its_blanks():
    written = "    indented\n\nlast line\n"
    call = (
        f"<tool_call>\n<function=read>\n<parameter=path>\n{written}\n</parameter>\n</function>\n</tool_call>"
    )

    assert json.loads(read("xml", call)[0].arguments) == {"path": written}


def test_arguments_are_as_the_model_wrote_them():
    arguments = '{"path":"a.py",  "lines" : 3}'

    pieces = read("json", f'<tool_call>{{"name": "read", "arguments": {arguments}}}</tool_call>')

    assert pieces == [ToolCall("read", arguments)]


def test_a_model_whose_template_marks_nothing_says_text():
    reader = Speech(chat_tokenizer(CHATML)).reader([1, 2], tools=TOOLS)

    assert reader.feed("<think>plain") == [Text("<think>plain")]
    assert reader.finish() == []


def test_text_is_told_as_it_comes():
    reader = SPEECHES["json"].reader([], tools=TOOLS)

    assert [reader.feed(word) for word in ("One ", "two ", "three")] == [
        [Text("One ")],
        [Text("two ")],
        [Text("three")],
    ]


PARTS = {
    name: [CALLS[name], CALLS[name][: len(CALLS[name]) // 2], *THOUGHT[name].partition("which file?")]
    for name in CALLS
}


@st.composite
def answers(draw):
    name = draw(st.sampled_from(sorted(CALLS)))
    part = st.one_of(
        st.sampled_from([*PARTS[name], "<", "\n", "\n\n", " ", "</think>", "<tool_call>", "word", "é漢"]),
        st.text(alphabet="<>/|\n {}\"'tool_cathink\ufdd0", max_size=6),
    )
    text = "".join(draw(st.lists(part, max_size=12)))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=20)))
    portions = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    begun = draw(st.sampled_from(["", "<think>\n", "<think>\n\n</think>\n\n"]))
    return name, text, portions, HEADER + begun


@given(answers())
@settings(max_examples=100, deadline=None)
def test_any_portioning_gives_the_same_pieces(answer):
    name, text, portions, prompt = answer

    assert read(name, text, portions=portions, prompt=prompt) == read(name, text, prompt=prompt)


@given(answers(), st.lists(st.sampled_from(["alpha", "beta", "gamma"]), min_size=1, max_size=3, unique=True))
@settings(max_examples=60, deadline=None)
def test_no_word_is_lost(answer, words):
    name, text, _, prompt = answer
    # From the end on, so that no word is put into another.
    for number, word in enumerate(words):
        at = len(answer[1]) * (len(words) - number) // (len(words) + 1)
        text = text[:at] + word + text[at:]

    told = "".join(
        piece.name + piece.arguments + str(piece.id) if isinstance(piece, ToolCall) else piece.text
        for piece in read(name, text, prompt=prompt)
    )

    assert all(word in told for word in words)
