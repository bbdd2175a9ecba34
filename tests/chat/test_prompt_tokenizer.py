"""Texts to tokens: what a tokenizer puts before a text is there once, whoever wrote it."""

import pytest

from chat_tokenizer import CHATML, KNOWN_ROLES, ONLY_PARTS, chat_tokenizer
from milepost.chat.prompt_tokenizer import PromptTokenizer
from milepost.errors import ConfigurationError, InvalidRequestError


def decoded(tokens, tokenizer):
    return [tokenizer.decode([token]) for token in tokens]


@pytest.mark.parametrize(
    ("single", "text", "tokens"),
    [
        ("<s> $A", "hi", ["<s>", "h", "i"]),
        ("<s> $A", "<s>hi", ["<s>", "h", "i"]),
        ("<s> $A", "<s><s>hi", ["<s>", "<s>", "h", "i"]),
        ("<s> $A", "h<s>i", ["<s>", "h", "<s>", "i"]),
        ("<s> $A", " <s>", ["<s>", " ", "<s>"]),
        ("<s> $A", "<|im_start|>hi", ["<s>", "<|im_start|>", "h", "i"]),
        ("<s> $A", "<s>", ["<s>"]),
        ("<s> $A <|im_end|>", "<s>hi", ["<s>", "h", "i", "<|im_end|>"]),
        ("<|im_start|> <s> $A", "<|im_start|><s>hi", ["<|im_start|>", "<s>", "h", "i"]),
        ("<|im_start|> <s> $A", "<s>h", ["<|im_start|>", "<s>", "<s>", "h"]),
        ("$A <|im_end|>", "<s>hi", ["<s>", "h", "i", "<|im_end|>"]),
        ("$A", "<s>hi", ["<s>", "h", "i"]),
        ("$A", "hi", ["h", "i"]),
    ],
)
def test_a_text_that_begins_with_what_the_tokenizer_adds_is_not_given_it_again(single, text, tokens):
    tokenizer = chat_tokenizer(single=single)
    encoded = PromptTokenizer(tokenizer).encode(text, add_special_tokens=True)
    assert decoded(encoded.tokens, tokenizer) == tokens
    assert encoded.end_characters.size == len(tokens)
    bare = PromptTokenizer(tokenizer).encode(text, add_special_tokens=False)
    assert bare.tokens == tokenizer.encode(text, add_special_tokens=False)


def test_positions_are_those_of_the_text_with_and_without_what_was_added():
    tokenizer = PromptTokenizer(chat_tokenizer())
    assert tokenizer.encode("hé you", add_special_tokens=True).position_of(2) == 1 + 3
    assert tokenizer.encode("<s>hé you", add_special_tokens=True).position_of(3 + 2) == 1 + 3


def test_a_tokenizer_without_offsets_encodes_and_says_that_it_knows_no_positions():
    class Slow:
        """As tokenizers of Python are: no offsets."""

        is_fast = False

        def __init__(self):
            self.upstream = chat_tokenizer()

        def __call__(self, text, *, add_special_tokens, return_offsets_mapping, verbose):
            assert not return_offsets_mapping
            return self.upstream(text, add_special_tokens=add_special_tokens)

    encoded = PromptTokenizer(Slow()).encode("<s>hi", add_special_tokens=True)
    assert encoded.tokens == chat_tokenizer().encode("hi")
    with pytest.raises(InvalidRequestError, match="where its tokens lie"):
        encoded.position_of(2)


def test_a_template_gets_texts_as_the_parts_that_it_wants():
    opened = chat_tokenizer(ONLY_PARTS)
    tokenizer = PromptTokenizer(opened)
    messages = [{"role": "user", "content": "hi"}]
    expected = "<|im_start|>user\nhi<|im_end|>\n"
    assert tokenizer.render(messages, options={}, add_generation_prompt=False) == expected
    opened.chat_template = CHATML  # a template is looked at again where it was changed
    assert tokenizer.render(messages, options={}, add_generation_prompt=False) == expected


def test_a_tokenizer_says_whether_it_has_a_template():
    assert PromptTokenizer(chat_tokenizer(KNOWN_ROLES)).has_chat_template
    bare = PromptTokenizer(chat_tokenizer(None))
    assert not bare.has_chat_template
    with pytest.raises(ConfigurationError, match="no chat template"):
        bare.render([{"role": "user", "content": "hi"}], options={}, add_generation_prompt=True)


@pytest.mark.parametrize(
    ("arguments", "takes"),
    [
        ("{{ c.function.arguments }}", True),
        (
            "{{ c.function.arguments if c.function.arguments is string else c.function.arguments | tojson }}",
            True,
        ),
        ("{{ c.function.arguments | tojson }}", False),
        ("{% for k, v in c.function.arguments.items() %}{{ k }}={{ v }}{% endfor %}", False),
        ("", False),
    ],
)
def test_arguments_stay_as_they_were_written_where_the_template_shows_them_so(arguments, takes):
    shown = (
        "{% for m in messages %}{% for c in m.tool_calls or [] %}" + arguments + "{% endfor %}{% endfor %}"
    )
    assert PromptTokenizer(chat_tokenizer(shown)).takes_written_arguments is takes


def test_a_template_that_is_replaced_is_looked_at_again():
    tokenizer = chat_tokenizer()
    prompts = PromptTokenizer(tokenizer)
    assert not prompts.takes_written_arguments
    tokenizer.chat_template = "{{ (messages | last).tool_calls[0].function.arguments }}"
    assert prompts.takes_written_arguments
