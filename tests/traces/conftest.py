"""A log written line by line and read back, through a real tokenizer where it is text."""

import json

import pytest

from chat_tokenizer import CHATML, write_chat_tokenizer
from milepost.traces import open_trace


@pytest.fixture(scope="session")
def chat_tokenizer_folder(tmp_path_factory):
    return write_chat_tokenizer(tmp_path_factory.mktemp("chatml"), CHATML)


@pytest.fixture
def log(tmp_path, chat_tokenizer_folder):
    """Return a function that writes lines (values, or text as it is) and opens them as a trace."""

    def written(*lines, name="log.jsonl", **options):
        path = tmp_path / name
        path.write_text(
            "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        )
        return open_trace(path, **{"tokenizer": chat_tokenizer_folder} | options)

    return written


@pytest.fixture(scope="session")
def open_tokenizer(chat_tokenizer_folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(chat_tokenizer_folder)


@pytest.fixture
def prompts(log, open_tokenizer):
    """Return a function that gives the prompts of a log as texts."""

    def texts(*lines, **options):
        return [open_tokenizer.decode(request.keys.tolist()) for request in log(*lines, **options)]

    return texts
