"""A conversation: what was said is kept, an answer can be stopped, and a script can hold it too."""

import json
import os
import pty
import signal
import string
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer
from typer.testing import CliRunner

import milepost
from chat_tokenizer import chat_tokenizer
from families import tiny_model
from milepost.cli.chat_session import ChatSession
from milepost.cli.chat_terminal import converse
from milepost.cli.program import app
from milepost.embedded import embedded_folder
from milepost.engines.engine import Engine
from milepost.errors import InvalidRequestError

torch.set_num_threads(1)

KEEP_KIND = {"role": "system", "content": "be kind"}


def said(text):
    return {"role": "user", "content": text}


@pytest.fixture(scope="module")
def engine():
    model = tiny_model("qwen3_5")
    model.resize_token_embeddings(260, mean_resizing=False)
    return Engine.open(
        model, capacity="64MiB", segment_tokens=64, policy="dense:64", tokenizer=chat_tokenizer()
    )


@pytest.fixture
def session(engine):
    return ChatSession(engine, system="be kind", options={"max_new_tokens": 8, "ignore_end_token": True})


def run(*arguments, **options):
    return CliRunner().invoke(
        app, ["chat", "embedded", "--max-new-tokens", "4", *arguments], catch_exceptions=True, **options
    )


# What is kept


def test_each_turn_is_kept_and_the_next_resumes_from_it(session, engine):
    first = "".join(session.answer([said("a long beginning " * 8)]))
    assert session.messages == [
        KEEP_KIND,
        said("a long beginning " * 8),
        {"role": "assistant", "content": first},
    ]
    list(session.answer([said("and on")]))
    assert session.completion.report.reused >= 128
    assert session.messages[3:] == [
        said("and on"),
        {"role": "assistant", "content": session.completion.text},
    ]
    session.reset()
    assert session.messages == [KEEP_KIND]


def test_an_answer_that_is_stopped_is_kept_as_far_as_it_came(session, engine, monkeypatch):
    whole = "".join(session.answer([said("hello")]))
    session.reset()
    upstream, turns = engine.step, []

    def interrupted():
        turns.append(1)
        if len(turns) == 5:
            raise KeyboardInterrupt
        return upstream()

    with monkeypatch.context() as patch:
        patch.setattr(engine, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            list(session.answer([said("hello")]))
    kept = session.messages[-1]["content"]
    assert session.messages[:-1] == [KEEP_KIND, said("hello")]
    assert whole.startswith(kept)
    assert 0 < len(kept) < len(whole)
    assert session.completion is None
    list(session.answer([said("go on")]))
    assert [message["role"] for message in session.messages[1:]] == ["user", "assistant"] * 2


def test_what_cannot_be_answered_was_never_said(session):
    list(session.answer([said("hello")]))
    before = list(session.messages)
    with pytest.raises(InvalidRequestError, match="neither content nor tool_calls"):
        list(session.answer([{"role": "user"}]))
    assert session.messages == before


def test_a_model_that_cannot_chat_says_so_before_anything_is_said(engine):
    bare = Engine.open(tiny_model("qwen3_5"), capacity="64MiB", segment_tokens=64)
    with pytest.raises(InvalidRequestError, match="chat messages and this model has no tokenizer"):
        ChatSession(bare, system=None, options={})


# Lines


def test_commands_are_no_messages(session, capsys):
    lines = iter(["/help", "/nonsense", "", "hello", "/reset", "again"])
    converse(session, read_line=lambda: next(lines))
    captured = capsys.readouterr()
    assert "Ctrl-D" in captured.err
    assert "there is no command /nonsense" in captured.err
    assert captured.err.count("prompt tokens reused") == 2
    assert [message["content"] for message in session.messages[:-1]] == ["be kind", "again"]


def test_a_pipe_is_answered_line_by_line_and_what_was_reused_goes_to_standard_error():
    done = run(input="hello\nand you?\n")
    assert done.exit_code == 0, done.output
    assert "prompt tokens reused" not in done.stdout
    assert done.stderr.count("prompt tokens reused") == 2


def test_a_script_gets_an_object_for_each_message_and_for_several_at_once():
    messages = ["hello", said("why"), [{"role": "assistant", "content": "so"}, said("and")]]
    done = run("--json", "--system", "be kind", input="".join(json.dumps(each) + "\n" for each in messages))
    assert done.exit_code == 0, done.output
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    lengths = [answer["report"]["num_tokens"] for answer in answers]
    assert lengths == sorted(lengths)
    tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
    opening = "<|system|>be kind<|end|><|user|>hello<|end|><|assistant|>"
    assert lengths[0] == len(tokenizer.encode(opening))
    assert all(1 <= len(answer["tokens"]) <= 4 for answer in answers)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("hello", "'hello' is not JSON"),
        ("5", "5 is no message"),
        ("[]", "[] is no message"),
        ('{"role": "user"}', "message 2, {'role': 'user'}, has neither content nor tool_calls"),
    ],
)
def test_a_line_that_is_no_message_is_named_and_what_came_before_it_was_answered(line, says):
    done = run("--json", input=f'"hello"\n{line}\n')
    assert done.exit_code == 1
    assert isinstance(done.exception, InvalidRequestError)
    assert str(done.exception).startswith(f"line 2: {says}")
    assert len(done.stdout.splitlines()) == 1


# A terminal


def test_on_a_terminal_ctrl_c_stops_the_answer_and_ctrl_d_the_conversation(tmp_path):
    model, tokenizer = tiny_model("qwen3_5"), chat_tokenizer()
    model.resize_token_embeddings(260, mean_resizing=False)
    # It says letters for ever: no part of a character that has to be waited for, and no end.
    letters = torch.zeros(260, 1)
    letters[tokenizer.convert_tokens_to_ids(list(string.ascii_letters))] = 1.0
    with torch.no_grad():
        model.get_output_embeddings().weight *= letters
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    terminal, its_end = pty.openpty()
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from milepost.cli import main; main()",
            *("chat", str(tmp_path), "--max-new-tokens", "30000", "--temperature", "0"),
        ],
        stdin=its_end,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=os.environ | {"PYTHONPATH": str(Path(milepost.__file__).parents[1]), "OMP_NUM_THREADS": "1"},
    )
    os.close(its_end)
    try:
        assert "/help for help" in process.stderr.readline()
        os.write(terminal, b"hello\n")
        assert process.stdout.read(20), "an answer is under way"
        process.send_signal(signal.SIGINT)
        assert "(stopped)" in process.stderr.readline()
        os.write(terminal, b"/reset\n")
        assert "forgotten" in process.stderr.readline()
        time.sleep(0.2)
        os.write(terminal, b"\x04")
        process.communicate(timeout=60)
    finally:
        process.kill()
        os.close(terminal)
    assert process.returncode == 0
