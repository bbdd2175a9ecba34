"""The tokenizer inside the file, with the interface of Hugging Face's."""

import pytest

from milepost.chat.prompt_tokenizer import PromptTokenizer
from milepost.engines.llamacpp.library import Model
from milepost.engines.llamacpp.tokenizer import GGUFTokenizer
from milepost.engines.text import TextStream

TEXTS = [
    "the and",
    "Hello, the world",
    " two  blanks  ",
    "naïve 東京 🙂 done",
    "<|user|>the question\n<|assistant|>and",
    "a\tb\nc",
    "",
]


@pytest.fixture(scope="module")
def tokenizer(gguf):
    return GGUFTokenizer(Model(gguf("llama")))


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_comes_back(tokenizer, text):
    tokens = tokenizer.encode(text, add_special_tokens=False)

    # SentencePiece puts a blank behind a special token, too.
    assert tokenizer.decode(tokens).replace("|> ", "|>") == text


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("adds", [False, True])
def test_offsets_lay_every_token_on_its_own_text(tokenizer, text, adds):
    encoded = tokenizer(text, add_special_tokens=adds, return_offsets_mapping=True)
    spans = encoded["offset_mapping"]

    assert len(spans) == len(encoded["input_ids"])
    assert [start for start, _ in spans] == sorted(start for start, _ in spans)
    assert (spans[-1][1] if spans else 0) == len(text)
    for token, (start, end) in zip(encoded["input_ids"], spans, strict=True):
        piece = tokenizer.decode([token]).strip()
        if "\ufffd" not in piece and token != 1:
            assert piece == text[start:end].strip()


def test_a_special_token_that_a_text_spells_out_is_that_token(tokenizer):
    assert tokenizer.encode("<|user|>", add_special_tokens=False) == [259]
    assert tokenizer.encode("</s>", add_special_tokens=False) == [2]


def test_the_file_says_what_goes_before_a_text_and_it_is_not_put_there_twice(tokenizer):
    assert tokenizer.encode("the")[0] == 1
    reader = PromptTokenizer(tokenizer)

    assert (
        reader.encode("<s>the", add_special_tokens=True).tokens
        == reader.encode("the", add_special_tokens=True).tokens
    )


def test_messages_become_the_text_of_the_template_of_the_file(tokenizer):
    messages = [{"role": "user", "content": "the"}, {"role": "assistant", "content": "and"}]

    assert tokenizer.apply_chat_template(messages, tokenize=False) == "<|user|>the\n<|assistant|>and\n"
    asked = tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
    assert asked == "<|user|>the\n<|assistant|>"
    assert tokenizer.apply_chat_template(messages[:1]) == tokenizer.encode(
        "<|user|>the\n", add_special_tokens=False
    )
    going_on = tokenizer.apply_chat_template(messages, tokenize=False, continue_final_message=True)
    assert going_on == "<|user|>the\n<|assistant|>and"


def test_special_tokens_have_their_texts(tokenizer):
    assert tokenizer.special_tokens_map == {"bos_token": "<s>", "eos_token": "</s>"}
    assert len(tokenizer) == 512


def test_text_streams_token_by_token_as_it_is_decoded_at_once(tokenizer):
    text = "the naïve 東京 🙂 and"
    stream = TextStream(tokenizer, ())
    pieces = [stream.push(token) for token in tokenizer.encode(text, add_special_tokens=False)]

    assert "".join(pieces) + stream.finish() == text


def test_bytes_that_are_no_text_are_said_to_be_none(tokenizer):
    assert tokenizer.decode([3 + 0xFF]) == "\ufffd"


def test_a_long_text_needs_no_larger_buffer_than_it_says(tokenizer):
    text = "the and " * 20_000

    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
