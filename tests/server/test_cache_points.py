"""What a client asks to have kept is there after much else has come and gone; what it does not, is not."""

import anthropic
import openai
import pytest
from running import MODEL
from scripted import scripted

from speech_templates import XML

SYSTEM = "The rules of this house are long. " * 12
OTHERS = [f"{number} " + "of many other questions. " * 20 for number in range(16)]


@pytest.fixture
def server():
    with scripted(XML, capacity=64 << 10, policy="balanced:2") as started:
        started.script["?"] = "<think>\n\n</think>\n\nYes."
        yield started


class Anthropic:
    def __init__(self, server):
        self.point = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
        self.client = anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0)

    def reused(self, question, *, system=None):
        given = {} if system is None else {"system": [system]}
        messages = [{"role": "user", "content": question + "?"}]
        answer = self.client.messages.create(model=MODEL, max_tokens=20, messages=messages, **given)
        return answer.usage.cache_read_input_tokens


class Chats:
    def __init__(self, server):
        self.point = {"prompt_cache_breakpoint": {"mode": "explicit", "ttl": "12h"}}
        self.client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)

    def reused(self, question, *, system=None):
        messages = [] if system is None else [{"role": "system", "content": [system]}]
        messages.append({"role": "user", "content": question + "?"})
        answer = self.client.chat.completions.create(model=MODEL, max_tokens=20, messages=messages)
        return answer.usage.prompt_tokens_details.cached_tokens


class Responses(Chats):
    def reused(self, question, *, system=None):
        items = [] if system is None else [{"role": "system", "content": [system | {"type": "input_text"}]}]
        items.append({"role": "user", "content": question + "?"})
        answer = self.client.responses.create(model=MODEL, max_output_tokens=20, input=items)
        return answer.usage.input_tokens_details.cached_tokens


@pytest.mark.parametrize("api", [Anthropic, Chats, Responses])
def test_what_a_cache_point_asks_for_is_kept_through_other_traffic(server, api):
    client = api(server)
    system = {"type": "text", "text": SYSTEM} | client.point
    client.reused("Who", system=system)

    for other in OTHERS:
        client.reused(other)

    assert client.reused("Why", system=system) > len(SYSTEM) - 16


@pytest.mark.parametrize("api", [Anthropic, Chats, Responses])
def test_without_one_it_goes_the_way_of_all_the_rest(server, api):
    client = api(server)
    system = {"type": "text", "text": SYSTEM}
    client.reused("Who", system=system)

    for other in OTHERS:
        client.reused(other)

    assert client.reused("Why", system=system) == 0


def test_a_time_that_no_api_has_is_refused(server):
    with pytest.raises(openai.BadRequestError, match="'2 weeks'; give 5m, 30m, 1h, 12h"):
        Chats(server).reused(
            "Who",
            system={"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral", "ttl": "2 weeks"}},
        )
