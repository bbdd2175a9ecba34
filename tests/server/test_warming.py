import json

import pytest
from running import open_engine

from milepost.errors import ConfigurationError
from milepost.server.warming import read_warm_prompts, warm

SYSTEM = "You answer questions about the keeping of bees, and about nothing else. " * 12


def written(tmp_path, *lines):
    path = tmp_path / "warm.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_a_system_prompt_is_there_before_the_first_client(tmp_path):
    system = {"role": "system", "content": SYSTEM}
    prompts = read_warm_prompts(written(tmp_path, {"messages": [system], "cache_salt": "bees"}, ""))
    engine, told = open_engine(), []
    warm(engine, prompts, tenant_of=lambda salt: f"part of {salt}", on_prompt=lambda *what: told.append(what))
    assert len(told) == 1
    asked = [system, {"role": "user", "content": "How many bees are a swarm?"}]
    first = engine.generate(asked, max_new_tokens=1, tenant="part of bees").report
    assert first.reused >= 768
    assert engine.generate(asked, max_new_tokens=1, tenant="another").report.reused == 0


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "no prompt"),
        (["{"], "line 1 is not JSON"),
        (["3"], "no text, no messages"),
        ([{"prompt": "a", "messages": []}], "needs a prompt or messages"),
        ([{"prompt": "a", "colour": "blue"}], "'colour'"),
        (['"a text"', "{}"], "line 2"),
    ],
)
def test_a_file_that_breaks_a_rule_names_the_line(tmp_path, lines, said):
    with pytest.raises(ConfigurationError, match=said):
        read_warm_prompts(written(tmp_path, *lines))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_warm_prompts(tmp_path / "nothing.jsonl")


def test_a_prompt_that_the_model_refuses_is_named(tmp_path):
    prompts = read_warm_prompts(written(tmp_path, json.dumps("x"), json.dumps("x" * 9000)))
    with pytest.raises(ConfigurationError, match="prompt 2 of --warm"):
        warm(open_engine(), prompts, tenant_of=str, on_prompt=lambda *_: None)
