"""A log that holds of each turn only what is new is refused, and one of whole prompts is not."""

import json

import pytest

from milepost.errors import TraceFormatError

USER = [{"role": "user", "content": said} for said in ("hi there", "and why", "and then", "so what")]
ANSWER = {"role": "assistant", "content": "because"}
SYSTEM = {"role": "system", "content": "be kind"}


def whole(turns: int) -> list:
    """The messages of a conversation's turn, all of them."""
    messages = [SYSTEM]
    for turn in range(turns):
        messages += [USER[turn], ANSWER]
    return messages[:-1]


def named(session, **prompt):
    return {"session_id": session, **prompt}


def bailian(chat, parent, **prompt):
    return {"chat_id": chat, "parent_chat_id": parent, "input_length": 16, **prompt}


ONLY_WHAT_IS_NEW = {
    "messages": [named("s", messages=[USER[turn]]) for turn in range(2)],
    "messages with the system's": [named("s", messages=[SYSTEM, USER[turn]]) for turn in range(3)],
    "the answer and the next question": [
        named("s", messages=[SYSTEM, USER[0]]),
        named("s", messages=[ANSWER, USER[1]]),
        named("s", messages=[ANSWER, USER[2]]),
    ],
    "results of tools": [
        named("s", messages=[USER[0]]),
        named("s", messages=[{"role": "tool", "content": "a door"}]),
    ],
    "Responses": [named("s", input=USER[turn]["content"]) for turn in range(2)],
    "prompts": [named("s", prompt=USER[turn]["content"]) for turn in range(3)],
    "token ids": [named("s", prompt_token_ids=[turn, 5, 6, 7]) for turn in range(3)],
    # A load generator's: each line adds to the one before.
    "block hashes of a load generator": [
        named("s", input_length=600, hash_ids=[2 * turn, 2 * turn + 1], delay=5) for turn in range(3)
    ],
    "conversation ids": [{"conversation_id": 7, "messages": [USER[turn]]} for turn in range(2)],
    "Bailian's chats": [bailian(turn, turn - 1, hash_ids=[turn]) for turn in range(4)],
    "Bailian's chats, named by strings": [
        bailian(f"c{turn}", f"c{turn - 1}" if turn else "", hash_ids=[turn]) for turn in range(3)
    ],
    "Bailian's chats between each other": [
        bailian(10 * turn + chat, 10 * (turn - 1) + chat if turn else -1, hash_ids=[100 * chat + turn])
        for turn in range(3)
        for chat in range(4)
    ],
    "camel case, on the envelope": [
        {"sessionId": "s", "request": {"body": {"messages": [USER[turn]]}}} for turn in range(2)
    ],
    "several conversations between each other": [
        named(session, messages=[USER[turn]]) for turn in range(3) for session in "abc"
    ],
}
WHOLE = {
    "growing messages": [named("s", messages=whole(turns)) for turns in (1, 2, 3)],
    "growing Responses": [named("s", input=whole(turns)) for turns in (1, 2, 3)],
    "growing prompts": [
        named("s", prompt="Once upon a time there was " + "x" * turns) for turns in (1, 2, 3)
    ],
    "growing block hashes": [
        named("s", input_length=512 * turns, hash_ids=list(range(turns))) for turns in (1, 2, 3)
    ],
    "one turn each": [named(session, messages=[USER[0]]) for session in "abcd"],
    "the same question again": [named("s", messages=[USER[0]])] * 3,
    "an edited last question": [
        named("s", messages=whole(2)),
        named("s", messages=[*whole(2)[:-1], USER[3]]),
    ],
    "a history that was cut short": [
        named("s", messages=whole(2)),
        named("s", messages=[SYSTEM, USER[2], ANSWER, USER[3]]),
    ],
    "no conversation's id": [{"messages": [USER[turn]]} for turn in range(4)],
    "blocks that a tool hashed": [
        named("s", input_length=64, block_size=64, hash_ids=[turn]) for turn in range(4)
    ],
    "Bailian's chats": [
        bailian(turn, turn - 1, input_length=16 * (turn + 1), hash_ids=list(range(turn + 1)))
        for turn in range(4)
    ],
    "Bailian's, two turns from one": [
        bailian(0, -1, hash_ids=[7]),
        bailian(1, 0, hash_ids=[7, 8], input_length=32),
        bailian(2, 0, hash_ids=[7, 9], input_length=32),
    ],
    "Bailian's, of which none goes on": [
        bailian(turn, -1 if turn % 2 else None, hash_ids=[turn]) for turn in range(4)
    ],
    "Bailian's, whose parents are not in the log": [
        bailian(turn, 100 + turn, hash_ids=[turn]) for turn in range(4)
    ],
    "Bailian's without parents": [
        {"chat_id": 5, "input_length": 16, "hash_ids": [turn]} for turn in range(1)
    ],
}


@pytest.mark.parametrize("name", ONLY_WHAT_IS_NEW)
def test_turns_that_hold_only_what_is_new_are_refused_with_the_remedy(log, name):
    with pytest.raises(TraceFormatError, match=r"of each turn only what is new.*line [2-9].*--whole-prompts"):
        list(log(*ONLY_WHAT_IS_NEW[name]))


@pytest.mark.parametrize("name", ONLY_WHAT_IS_NEW)
def test_who_says_that_prompts_are_whole_is_believed(log, name):
    assert len(list(log(*ONLY_WHAT_IS_NEW[name], whole_prompts=True))) == len(ONLY_WHAT_IS_NEW[name])


@pytest.mark.parametrize("name", WHOLE)
def test_whole_prompts_are_read_without_a_word(log, name):
    trace = log(*WHOLE[name])
    assert len(list(trace)) == len(WHOLE[name])
    assert trace.facts.notes() == []


def test_a_few_new_beginnings_among_whole_turns_are_said(log):
    lines = [named("s", messages=whole(turns)) for turns in (1, 2, 3)]
    lines.insert(1, named("s", messages=[{"role": "user", "content": "name this chat"}]))
    trace = log(*lines)
    assert len(list(trace)) == 4
    (note,) = trace.facts.notes()
    assert "1 later turn that begin otherwise than their conversation" in note


def test_the_first_so_many_requests_are_judged_alike(log):
    lines = ONLY_WHAT_IS_NEW["messages"]
    with pytest.raises(TraceFormatError, match="only what is new"):
        list(log(*lines).first(2))
    assert len(list(log(*lines).first(1))) == 1


def test_a_long_log_of_parts_is_refused_before_its_end(log):
    lines = [named("s", prompt=[turn] * 20) for turn in range(500)]
    trace = log(*lines, tokenizer=None)
    with pytest.raises(TraceFormatError, match="only what is new"):
        list(trace)
    assert trace.num_requests < 100


@pytest.mark.parametrize("command", ["simulate", "recommend"])
def test_the_command_line_refuses_and_believes(log, command, tmp_path):
    from typer.testing import CliRunner

    from milepost.cli.program import app

    log(*[named("s", prompt=[turn] * 200) for turn in range(3)])
    arguments = [
        command,
        str(tmp_path / "log.jsonl"),
        "--capacity-kv-tokens",
        "4k",
        "--checkpoint-kv-tokens",
        "8",
    ]
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code != 0
    assert "only what is new" in str(refused.exception)
    done = CliRunner().invoke(app, [*arguments, "--whole-prompts", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)


def test_a_log_that_has_each_request_twice_is_said(log):
    came = {"rid": "a", "event": {"obj": {"input_ids": [1, 2, 3]}}}
    trace = log(
        came, came | {"out": 1}, {"rid": "b", "prompt_token_ids": [1, 2, 3]}, {"rid": "b", "input_ids": [4]}
    )
    list(trace)
    assert trace.facts.num_repeated == 1
    assert trace.facts.notes()[0].startswith("1 request with the id and the prompt of an earlier one")


def test_answers_at_the_end_of_prompts_are_said(log):
    trace = log({"messages": [*whole(1), ANSWER]}, {"messages": whole(2)})
    list(trace)
    assert trace.facts.num_ending_in_answer == 1
    assert "1 request with an answer as the last message" in trace.facts.notes()[0]
    continued = log({"messages": [*whole(1), ANSWER], "continue_final_message": True})
    list(continued)
    assert continued.facts.notes() == []


def test_prompts_much_shorter_than_the_server_counted_are_said(log):
    lines = [
        {"prompt": [1, 2, 3], "response": {"usage": {"prompt_tokens": 900, "completion_tokens": 1}}},
        {"prompt": [1, 2, 3], "usage": {"input_tokens": 5, "cache_read_input_tokens": 800}},
        {"prompt": [1, 2, 3], "prompt_tokens": 3},
        {"prompt": [1, 2, 3]},
    ]
    trace = log(*lines)
    list(trace)
    assert (trace.facts.logged_tokens, trace.facts.read_tokens) == (1708, 9)
    assert "the log counts 1,708 prompt tokens where 9 were read" in trace.facts.notes()[0]


def test_counts_that_agree_are_not_worth_a_word(log):
    trace = log({"prompt": [1] * 100, "usage": {"prompt_tokens": 104}})
    list(trace)
    assert trace.facts.notes() == []
