"""What the chat template is told where a request says nothing: the same in every API."""

import anthropic
import openai
import pytest
from running import MODEL, open_engine, running
from typer.testing import CliRunner

from chat_tokenizer import chat_tokenizer
from milepost.cli.program import app
from milepost.errors import ConfigurationError
from milepost.server.warming import read_warm_prompts, warm

TWICE = "{% for m in messages %}{{ m.content ~ m.content if twice else m.content }}{% endfor %}"
MESSAGES = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def server():
    options = {"tokenizer": chat_tokenizer(TWICE, single="$A"), "chat_template_kwargs": {"twice": True}}
    with running(engine_options=options) as started:
        yield started


def test_it_holds_where_a_request_says_nothing(server):
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")
    asked = {"model": MODEL, "messages": MESSAGES, "max_tokens": 1}
    assert client.chat.completions.create(**asked).usage.prompt_tokens == 10
    own = {"chat_template_kwargs": {"twice": False}}
    assert client.chat.completions.create(**asked, extra_body=own).usage.prompt_tokens == 5
    other = {"chat_template_kwargs": {"other": 1}}
    assert client.chat.completions.create(**asked, extra_body=other).usage.prompt_tokens == 10
    answer = client.responses.create(model=MODEL, input="Hello", max_output_tokens=1)
    assert answer.usage.input_tokens == 10
    with anthropic.Anthropic(base_url=server.url, api_key="none") as messages:
        assert messages.messages.create(**asked).usage.input_tokens == 10
        assert messages.messages.count_tokens(model=MODEL, messages=MESSAGES).input_tokens == 10


def test_it_holds_for_the_tokens_of_a_prompt(server, http):
    assert http.post("/tokenize", json={"messages": MESSAGES}).json()["count"] == 10
    # A text has no template.
    assert http.post("/tokenize", json={"prompt": "Hello"}).json()["count"] == 5


def test_what_is_warmed_is_what_is_asked(tmp_path):
    engine = open_engine(tokenizer=chat_tokenizer(TWICE, single="$A"), chat_template_kwargs={"twice": True})
    long = [{"role": "user", "content": "Hello " * 100}]
    path = tmp_path / "warm.jsonl"
    path.write_text(f'{{"messages": [{{"role": "user", "content": "{long[0]["content"]}"}}]}}\n')
    warm(engine, read_warm_prompts(path), tenant_of=lambda salt: "", on_prompt=lambda *_: None)
    assert engine.generate(long, max_new_tokens=1).report.reused > 1000
    twin = engine.sibling(capacity="64MiB", policy="none")
    assert twin.encode(long).size == 1200


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("thinking", "by name"),
        ({"tokenize": True}, "no variable of a template"),
        ({"messages": []}, "no variable of a template"),
        ({1: True}, "names are texts"),
    ],
)
def test_what_every_request_would_be_refused_for_is_refused_on_opening(options, said):
    with pytest.raises(ConfigurationError, match=said):
        open_engine(chat_template_kwargs=options)


@pytest.mark.parametrize("text", ["{", "3", "[]", "twice=1"])
def test_the_command_line_takes_an_object(text):
    done = CliRunner().invoke(app, ["serve", "--chat-template-kwargs", text])
    assert done.exit_code == 2
    assert "write '{" in " ".join(done.output.split())
