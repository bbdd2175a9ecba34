import pytest

from chat_tokenizer import chat_tokenizer
from milepost.engines.prompts import PromptReader
from milepost.server.speech.pieces import Reasoning, Text, ToolCall
from milepost.server.speech.speech import Speech
from speech_templates import ALL, TOOLS

USER = {"role": "user", "content": "What is in a.py?"}
RESULT = {"role": "tool", "tool_call_id": "functions.read:0", "content": "one line"}
# What each model writes after its prompt: a call, then an answer.
LOOPS = {
    "xml": (
        "which file?\n</think>\n\nI look.\n\n<tool_call>\n<function=read>\n"
        "<parameter=path>\na.py\n</parameter>\n"
        "<parameter=all>\ntrue\n</parameter>\n</function>\n</tool_call>",
        "short.\n</think>\n\nOne line.",
    ),
    "json": (
        "<think>\nwhich file?\n\n\n</think>\n\n\nI look.\n\n"
        '<tool_call>\n{"name": "read", "arguments": {"path":"a.py",  "all" : true}}\n</tool_call>',
        "<think>\nshort.\n</think>\n\nOne line.",
    ),
    "python": (
        "<think> which file? \n</think>\n\nI look. "
        "<|tool_call_start|>[read(path='a.py', all=True)]<|tool_call_end|>",
        "<think>short.</think>\n\nOne line.",
    ),
    "sections": (
        "<think>which file? </think>I look.<|tool_calls_section_begin|><|tool_call_begin|>functions.read:0"
        '<|tool_call_argument_begin|>{"path": "a.py"}<|tool_call_end|><|tool_calls_section_end|>',
        "<think>short.</think>One line.",
    ),
    "list": (
        "which file?\n</think>\nI look.\n\n"
        '<TOOLCALL>[{"name": "read", "arguments": {"path": "a.py"}}]</TOOLCALL>\n',
        "short.\n</think>\nOne line.\n",
    ),
}


class Chat:
    """A conversation with a model that says what it is told to, through the prompts of an engine."""

    def __init__(self, template, *, change=lambda message: message):
        self.tokenizer = chat_tokenizer(template)
        self.speech = Speech(self.tokenizer)
        self.prompts = PromptReader(tokenizer=self.tokenizer, vocabulary_size=1000, context_length=None)
        self.messages = [USER]
        self.change = change

    def prompt(self, **options):
        return self.prompts.read(self.messages, tools=TOOLS, chat_template_kwargs=options).tokens.tolist()

    def answer(self, written, *following, **options):
        """Let the model write; return its tokens after the prompt's, and the next prompt's."""
        prompt = self.prompt(**options)
        reader = self.speech.reader(prompt, tools=TOOLS)
        pieces = reader.feed(written) + reader.finish()
        self.messages += [self.change(message_of(pieces)), *following]
        said = prompt + self.tokenizer.encode(written, add_special_tokens=False)
        return said, self.prompt(**options)


def message_of(pieces):
    """Return the message that a client of OpenAI's API sends back."""
    return {
        "role": "assistant",
        "content": "".join(piece.text for piece in pieces if isinstance(piece, Text)),
        "reasoning_content": "".join(piece.text for piece in pieces if isinstance(piece, Reasoning)),
        "tool_calls": [
            {
                "type": "function",
                "id": piece.id or "call_1",
                "function": {"name": piece.name, "arguments": piece.arguments},
            }
            for piece in pieces
            if isinstance(piece, ToolCall)
        ],
    }


def shared(said, prompt):
    return next(
        (at for at, pair in enumerate(zip(said, prompt, strict=False)) if pair[0] != pair[1]), len(said)
    )


@pytest.mark.parametrize("name", ALL)
def test_the_prompts_of_a_loop_of_tools_repeat_what_was_generated_byte_for_byte(name):
    chat = Chat(ALL[name])
    call, answer = LOOPS[name]

    said, prompt = chat.answer(call, RESULT, keep_thoughts=True)
    assert chat.messages[1]["tool_calls"], "the call was read"
    assert shared(said, prompt) == len(said)
    said, prompt = chat.answer(answer, USER, keep_thoughts=True)
    assert shared(said, prompt) == len(said)


@pytest.mark.parametrize("name", ALL)
def test_reasoning_with_one_blank_more_is_computed_again_from_there(name):
    def one_blank_more(message):
        return message | {"reasoning_content": message["reasoning_content"].replace("file", " file")}

    chat = Chat(ALL[name], change=one_blank_more)

    said, prompt = chat.answer(LOOPS[name][0], RESULT)

    text = chat.tokenizer.decode(said)
    rest = text[text.index("file?") :]
    assert shared(said, prompt) == len(said) - len(chat.tokenizer.encode(rest, add_special_tokens=False))


def test_a_template_that_leaves_old_thoughts_out_loses_from_there():
    chat = Chat(ALL["xml"])
    chat.answer(LOOPS["xml"][0], RESULT)

    said, prompt = chat.answer(LOOPS["xml"][1], USER)

    # The loop is written again without its thoughts, after the first question.
    assert chat.tokenizer.decode(said[: shared(said, prompt)]).endswith("<|im_start|>assistant\n")
    assert shared(said, prompt) < len(said)


def test_and_keeps_them_where_it_is_told_to():
    chat = Chat(ALL["xml"])
    chat.answer(LOOPS["xml"][0], RESULT, keep_thoughts=True)

    said, prompt = chat.answer(LOOPS["xml"][1], USER, keep_thoughts=True)

    assert shared(said, prompt) == len(said)


@pytest.mark.parametrize("name", ["reasoning", "thinking", "reasoning_content"])
def test_reasoning_comes_back_under_any_of_its_names(name):
    def renamed(message):
        return {name if key == "reasoning_content" else key: value for key, value in message.items()}

    chat = Chat(ALL["json"], change=renamed)

    said, prompt = chat.answer(LOOPS["json"][0], RESULT)

    assert shared(said, prompt) == len(said)
