"""What an answer says, by the chat template inside a GGUF file and its tokenizer."""

import json

import pytest

from milepost.chat.conversation import Conversation
from milepost.chat.messages import read_messages
from milepost.chat.prompt_tokenizer import PromptTokenizer
from milepost.engines.llamacpp.library import Model
from milepost.engines.llamacpp.tokenizer import GGUFTokenizer
from milepost.server.speech.pieces import Reasoning, Text, joined
from milepost.server.speech.speech import Speech
from speech_templates import ALL, TOOLS

WRITTEN = {
    "xml": "which file?\n</think>\n\nI look.\n\n<tool_call>\n<function=read>\n"
    "<parameter=path>\na.py\n</parameter>\n</function>\n</tool_call>",
    "json": "<think>\nwhich file?\n</think>\n\nI look.\n<tool_call>\n"
    '{"name": "read", "arguments": {"path": "a.py"}}\n</tool_call>',
}


@pytest.mark.parametrize("name", WRITTEN)
def test_reasoning_text_and_a_call_are_told_apart(gguf, name):
    tokenizer = GGUFTokenizer(Model(gguf("llama")))
    tokenizer.chat_template = ALL[name]
    messages = read_messages([{"role": "user", "content": "What is in a.py?"}])
    prompt, _ = Conversation(PromptTokenizer(tokenizer), messages, tools=TOOLS).encoded()

    reader = Speech(tokenizer).reader(prompt, tools=TOOLS)
    pieces = joined([piece for letter in WRITTEN[name] for piece in reader.feed(letter)] + reader.finish())

    assert pieces[:2] == [Reasoning("which file?"), Text("I look.")]
    assert json.loads(pieces[2].arguments) == {"path": "a.py"}
