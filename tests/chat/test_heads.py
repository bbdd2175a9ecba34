"""What is remembered of a conversation's beginnings is looked at again every time."""

import pytest

from chat_tokenizer import CHATML, COUNTS_MESSAGES, NEEDS_USER, THINKS_LAST, chat_tokenizer
from milepost.chat.conversation import Conversation
from milepost.chat.heads import Head, HeadMemory
from milepost.chat.messages import read_messages
from milepost.chat.prompt_tokenizer import PromptTokenizer

CHAT = [{"role": ("user", "assistant")[number % 2], "content": f"words {number} é"} for number in range(9)]


def test_a_head_is_known_by_every_character():
    head = Head.of("héllo")
    assert head.begins("héllo")
    assert head.begins("héllo there")
    assert not head.begins("héll")
    assert not head.begins("hello there")


def test_the_heads_that_were_asked_for_last_are_kept():
    memory, rendered = HeadMemory(most_heads=2), []

    def ask(name):
        return memory.get(name, lambda: rendered.append(name) or None)

    for name in (b"a", b"b", b"a", b"c", b"a", b"b"):
        assert ask(name) is None
    assert rendered == [b"a", b"b", b"c", b"b"]


class Counts(PromptTokenizer):
    """Counts how many messages it renders."""

    num_rendered = 0

    def render(self, messages, **options):
        self.num_rendered += len(messages)
        return super().render(messages, **options)


@pytest.mark.parametrize("template", [CHATML, NEEDS_USER, THINKS_LAST, COUNTS_MESSAGES])
def test_turn_after_turn_gives_what_a_first_look_gives_for_less(template):
    remembers = Counts(chat_tokenizer(template))
    for num_messages in (1, 3, 5, 7, 9):
        messages = read_messages(CHAT[:num_messages])
        fresh = Counts(chat_tokenizer(template))
        remembers.num_rendered = 0
        assert Conversation(remembers, messages).encoded() == Conversation(fresh, messages).encoded()
    assert remembers.num_rendered < fresh.num_rendered
    # The prompt itself, and beginnings with at least one new message.
    assert template != CHATML or remembers.num_rendered == 9 + 8 + 9


def test_another_template_or_other_tools_are_other_beginnings():
    tokenizer = chat_tokenizer(CHATML)
    remembers = PromptTokenizer(tokenizer)
    messages = read_messages(CHAT)
    for template, tools in ((CHATML, None), (CHATML, [{"name": "look"}]), (THINKS_LAST, None)):
        tokenizer.chat_template = template
        fresh = PromptTokenizer(chat_tokenizer(template))
        assert (
            Conversation(remembers, messages, tools=tools).encoded()
            == Conversation(fresh, messages, tools=tools).encoded()
        )
