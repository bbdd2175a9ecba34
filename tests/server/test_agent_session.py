"""A coding agent at work over Anthropic's API: what of each of its prompts is computed anew."""

import anthropic
import pytest
from running import MODEL
from scripted import HEADER, scripted

from speech_templates import XML

GRID = 16
SYSTEM = [
    {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.0; cch={nonce};"},
    {"type": "text", "text": "You are an agent that edits files. " * 20},
    {
        "type": "text",
        "text": "The rules of this house. " * 20,
        "cache_control": {"type": "ephemeral", "ttl": "1h"},
    },
]
TOOLS = [
    {
        "name": name,
        "description": f"To {name} a file.",
        "input_schema": {
            "type": "object",
            "properties": {"path": {"type": "string"}, "text": {"type": "string"}},
            "required": ["path"],
        },
    }
    for name in ("read", "write")
]


def call(name, **arguments):
    parameters = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in arguments.items())
    return f"<tool_call>\n<function={name}>\n{parameters}</function>\n</tool_call>"


SCRIPT = {
    "fix the bug": "<think>\nread it first\n</think>\n\nI read it." + "\n\n" + call("read", path="a.py"),
    "x = 1": "<think>\none is wrong\n</think>\n\n" + call("write", path="a.py", text="    x = 2\n\ny = 3"),
    "written": "<think>\ncheck it\n</think>\n\nOnce more." + "\n\n" + call("read", path="a.py"),
    "x = 2": "<think>\nall is well\n</think>\n\nIt is mended.",
    "thank you": "<think>\n\n</think>\n\nYou are welcome.",
}
RESULTS = {("read", 0): "x = 1", ("write", 1): "written", ("read", 2): "x = 2"}


class Agent:
    """Sends what it has with every request, streamed, with a cache point at the end; and runs its tools."""

    def __init__(self, client):
        self.client = client
        self.messages = []
        self.usages = []
        self.num_asked = 0

    def say(self, text):
        self.messages.append({"role": "user", "content": [{"type": "text", "text": text}]})
        for _ in range(10):
            answer = self._ask()
            self.messages.append(
                {"role": "assistant", "content": [each.to_dict() for each in answer.content]}
            )
            if answer.stop_reason != "tool_use":
                return answer
            self.messages.append({"role": "user", "content": [self._run(answer.content[-1])]})
        raise AssertionError("the loop of tools does not end")

    def _run(self, used):
        result = RESULTS[used.name, sum(m["role"] == "assistant" for m in self.messages) - 1]
        return {"type": "tool_result", "tool_use_id": used.id, "content": [{"type": "text", "text": result}]}

    def _ask(self):
        self.num_asked += 1
        nonce = f"{self.num_asked:05x}"
        system = [{**SYSTEM[0], "text": SYSTEM[0]["text"].format(nonce=nonce)}, *SYSTEM[1:]]
        *before, last = self.messages
        point = {"cache_control": {"type": "ephemeral"}}
        marked = {**last, "content": [*last["content"][:-1], last["content"][-1] | point]}
        with self.client.messages.stream(
            model=MODEL,
            max_tokens=400,
            system=system,
            tools=TOOLS,
            messages=[*before, marked],
            thinking={"type": "adaptive"},
            metadata={"user_id": "a session"},
            extra_headers={"anthropic-beta": "interleaved-thinking-2025-05-14"},
            extra_body={
                "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}
            },
        ) as stream:
            answer = stream.get_final_message()
        self.usages.append(answer.usage)
        return answer


@pytest.fixture
def server():
    with scripted(XML) as started:
        started.script.update(SCRIPT)
        yield started


@pytest.fixture
def agent(server):
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        yield Agent(client)


def prompt_tokens(usage):
    return usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens


def test_in_a_loop_of_tools_every_prompt_is_resumed_where_the_one_before_it_ended(agent):
    assert agent.say("Please fix the bug.").content[-1].text == "It is mended."
    assert agent.messages[3]["content"][-1]["input"] == {"path": "a.py", "text": "    x = 2\n\ny = 3"}

    assert len(agent.usages) == 4
    assert agent.usages[0].cache_read_input_tokens == 0
    for before, usage in zip(agent.usages, agent.usages[1:], strict=False):
        assert usage.cache_read_input_tokens > prompt_tokens(before) - GRID
    # What is computed is the answer, the tool's result, and what the grid leaves.
    for before, usage in zip(agent.usages, agent.usages[1:], strict=False):
        new = prompt_tokens(usage) - prompt_tokens(before)
        assert prompt_tokens(usage) - usage.cache_read_input_tokens < new + GRID
        assert new > before.output_tokens


def test_the_next_question_is_resumed_where_its_template_leaves_the_old_thoughts_out(agent, server):
    agent.say("Please fix the bug.")
    first = agent.usages[0]

    agent.say("I thank you. thank you")

    # Thoughts of a loop that is over are left out from its first step on: the template's loss.
    begun = len(server.tokenizer.encode(HEADER + "<think>\n", add_special_tokens=False))
    loop_began = prompt_tokens(first) - begun
    assert agent.usages[-1].cache_read_input_tokens > loop_began - GRID
    assert agent.usages[-1].cache_read_input_tokens < prompt_tokens(agent.usages[-2])


def test_a_second_session_has_its_system_prompt_and_tools_from_the_first(agent, server):
    agent.say("Please fix the bug.")
    with anthropic.Anthropic(base_url=server.url, api_key="none") as client:
        other = Agent(client)
        other.say("thank you")

    assert other.usages[0].cache_read_input_tokens > len("The rules of this house. ") * 20 * 2
