"""What a client passes on to a template is a variable of it, and never an argument of what renders it."""

import inspect

import pytest

from chat_tokenizer import CHATML, chat_tokenizer
from milepost.chat.prompt_tokenizer import PromptTokenizer
from milepost.errors import InvalidRequestError

MESSAGES = [{"role": "user", "content": "hello"}]
TOKENIZER = chat_tokenizer(CHATML)
# Documents are a variable of templates for retrieval; whatever has no name is one, too.
VARIABLES = {"documents", "kwargs"}
ARGUMENTS = sorted(set(inspect.signature(TOKENIZER.apply_chat_template).parameters) - VARIABLES)


def render(**options):
    return PromptTokenizer(TOKENIZER).render(MESSAGES, options=options, add_generation_prompt=True)


@pytest.mark.parametrize("name", [*ARGUMENTS, "messages", "as_parts", "self"])
def test_each_argument_of_the_renderer_is_refused_by_name_with_the_remedy(name):
    with pytest.raises(InvalidRequestError) as refusal:
        render(**{name: "x"})
    message = str(refusal.value)
    assert f"chat_template_kwargs has {name!r}" in message
    assert any(remedy in message for remedy in ("give them", "give it", "leave it out", "set tokenizer"))
    assert "argument" not in message
    assert "()" not in message


@pytest.mark.parametrize("options", [{}, {"enable_thinking": False}, {"documents": []}, {"options": 1}])
def test_variables_of_a_template_go_through(options):
    assert "hello" in render(**options)


def test_a_name_is_a_text():
    with pytest.raises(InvalidRequestError, match="the name 1; names are texts"):
        PromptTokenizer(TOKENIZER).render(MESSAGES, options={1: 2}, add_generation_prompt=True)
