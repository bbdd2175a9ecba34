"""Made-up traffic: the same for everybody, shaped as it says."""

import hashlib
from itertools import pairwise

import numpy as np
import pytest

from milepost.errors import ConfigurationError
from milepost.traces import describe_workloads, open_trace
from milepost.traces.synthetic import WORKLOADS, parse_workload
from milepost.traces.synthetic.tokens import Segment, block_keys, prompt_tokens

# A change of these is a change of everybody's traces, and belongs in the change log.
DIGESTS = {
    "documents": "719174235b04e62f",
    "chat": "4c3db2c760964b7b",
    "agents": "02dff7044d7e31d8",
    "system-prompts": "5e8494b8194ccad9",
    "uniform": "8e090527c4d46b0d",
    "drifting": "7c7dfb8c1c85d392",
}


def digest(trace) -> str:
    hasher = hashlib.sha256()
    for request in trace:
        hasher.update(request.keys.astype("<i8").tobytes())
        facts = (request.num_tokens, request.output_tokens, request.arrival_seconds, request.session)
        hasher.update(repr((*facts, request.breakpoints)).encode())
    return hasher.hexdigest()[:16]


def overlap_depths(requests) -> list[int]:
    """How many tokens of each request some earlier one began with."""
    seen, depths = set(), []
    for request in requests:
        keys = request.keys.tolist()
        shared = next((index for index, key in enumerate(keys) if key not in seen), len(keys))
        depths.append(min(shared * request.key_tokens, request.num_tokens))
        seen.update(keys)
    return depths


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_same_options_give_the_same_trace_on_every_machine(name):
    trace = open_trace(f"synthetic:{name},requests=60,seed=3")
    assert digest(trace) == digest(trace) == DIGESTS[name]
    assert digest(open_trace(f"synthetic:{name},requests=60,seed=4")) != DIGESTS[name]


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_trace_has_what_was_asked_for(name):
    requests = list(open_trace(f"synthetic:{name},requests=80,block=32,rate=4"))
    assert len(requests) == 80
    assert {request.key_tokens for request in requests} == {32}
    assert len({request.request_id for request in requests}) == 80
    arrivals = [request.arrival_seconds for request in requests]
    assert arrivals == sorted(arrivals)
    assert 10 < arrivals[-1] < 40


@pytest.mark.parametrize("name", WORKLOADS)
def test_blocks_and_tokens_tell_of_the_same_prompts(name):
    blocks = list(open_trace(f"synthetic:{name},requests=40,block=16"))
    tokens = list(open_trace(f"synthetic:{name},requests=40,block=1"))
    for coarse, fine in zip(blocks, tokens, strict=True):
        assert coarse.num_tokens == fine.num_tokens == fine.keys.size
        assert fine.keys.max() < 2**17
    for index in range(1, 40):
        left, right = tokens[index - 1].keys, tokens[index].keys
        size = min(left.size, right.size)
        parts = np.flatnonzero(left[:size] != right[:size])
        shared_tokens = int(parts[0]) if parts.size else size
        left, right = blocks[index - 1].keys, blocks[index].keys
        shared_keys = int(np.cumprod(left[: size // 16] == right[: size // 16]).sum())
        assert shared_keys == shared_tokens // 16


def test_chats_repeat_all_before_and_agents_do_so_behind_their_tools():
    for name in ("chat", "agents"):
        longest = {}
        for request in open_trace(f"synthetic:{name},requests=200,block=1,concurrency=4"):
            before = longest.get(request.session)
            if before is not None:
                assert request.num_tokens > before.size
                assert (request.keys[: before.size] == before).all()
                assert before.size in request.breakpoints
            longest[request.session] = request.keys
        assert len(longest) > 4


def test_sessions_are_interleaved():
    sessions = [request.session for request in open_trace("synthetic:agents,requests=100")]
    changes = sum(left != right for left, right in pairwise(sessions))
    assert changes > 60
    assert len(set(sessions[:50])) >= 8


def test_questions_about_a_document_share_it_and_end_differently():
    requests = list(open_trace("synthetic:documents,requests=300"))
    depths = overlap_depths(requests)
    asked = set()
    for request, depth in zip(requests, depths, strict=True):
        document_end = request.breakpoints[1]
        assert depth >= (document_end // 16 * 16 if request.session in asked else 0)
        assert depth <= document_end
        asked.add(request.session)
    assert 30 < len(asked) < 120


def test_system_prompts_are_shared_unevenly_and_nothing_else_is():
    requests = list(open_trace("synthetic:system-prompts,requests=400,systems=5"))
    depths = overlap_depths(requests)
    assert sum(depth == 0 for depth in depths) == 5
    for request, depth in zip(requests, depths, strict=True):
        assert depth in (0, request.breakpoints[0] // 16 * 16)


def test_uniform_depths_are_uniform_and_no_boundary_tells_them():
    requests = list(open_trace("synthetic:uniform,requests=2000,bases=3,length=1600,block=1"))
    assert all(request.num_tokens == 1600 and not request.breakpoints for request in requests)
    bases = {request.keys[0]: request.keys for request in requests[:3]}
    depths = [
        int(np.cumprod(request.keys == bases[request.keys[0]]).sum())
        for request in requests[3:]
        if request.keys[0] in bases
    ]
    quarters = np.histogram(depths, bins=4, range=(0, 1600))[0]
    assert abs(quarters / len(depths) - 0.25).max() < 0.04


def test_a_drifting_mix_goes_from_chats_through_documents_to_agents():
    requests = list(open_trace("synthetic:drifting,requests=1500"))
    kinds = [request.session.partition("-")[0] for request in requests]
    thirds = [kinds[:300], kinds[500:900], kinds[-300:]]
    assert [max(set(third), key=third.count) for third in thirds] == ["chat", "document", "agent"]


def test_a_session_ends_before_its_context_is_full():
    requests = list(open_trace("synthetic:agents,requests=300,context=20000,system=5000,steps=200"))
    assert max(request.num_tokens for request in requests) <= 20_000
    assert len({request.session for request in requests}) > 12


def test_lengths_follow_their_medians():
    lengths = [
        r.breakpoints[1] - r.breakpoints[0]
        for r in open_trace("synthetic:documents,requests=2000,questions=1")
    ]
    assert 5_500 < np.median(lengths) < 6_500
    assert np.mean(lengths) > 1.15 * np.median(lengths)


def test_a_segment_is_known_by_its_seed_and_its_place():
    left, right = Segment(1, 40), Segment(2, 40)
    assert (prompt_tokens([left]) != prompt_tokens([right])).any()
    forward = block_keys(prompt_tokens([left, right]), block_tokens=16)
    backward = block_keys(prompt_tokens([right, left]), block_tokens=16)
    assert not set(forward.tolist()) & set(backward.tolist())
    assert forward.size == 5
    assert block_keys(prompt_tokens([left]), block_tokens=16).size == 3
    assert block_keys(prompt_tokens([Segment(1, 1)]), block_tokens=16).size == 1


def test_every_workload_is_described_by_what_parses():
    described = describe_workloads()
    assert len(described) == len(WORKLOADS)
    for notation, summary in described:
        assert parse_workload(notation).requests == 2_000
        assert summary


@pytest.mark.parametrize(
    ("notation", "says"),
    [
        ("synthetic:", "'' is unknown; it is one of documents, chat"),
        ("synthetic:chats", r"did you mean 'chat'\?"),
        ("synthetic:chat,request=5", r"'request' is unknown to 'chat'; did you mean 'requests'\?"),
        ("synthetic:chat,5", "option '5' is unknown"),
        ("synthetic:chat,", "option '' is unknown"),
        ("synthetic:chat,requests=5,requests=6", "given twice"),
        ("synthetic:chat,requests=five", "requests='five' is not a whole number"),
        ("synthetic:chat,requests=1.5", "not a whole number"),
        ("synthetic:chat,requests", "requests='' is not a whole number"),
        ("synthetic:chat,turns=many", "turns='many' is not a number"),
        ("synthetic:chat,requests=0", "requests=0; give a positive number"),
        ("synthetic:chat,rate=-1", r"rate=-1\.0; give a positive number"),
        ("synthetic:chat,rate=nan", "rate=nan"),
        ("synthetic:chat,rate=inf", "rate=inf"),
        ("synthetic:chat,seed=-1", "seed=-1; give 0 or more"),
    ],
)
def test_a_mistake_in_the_notation_is_an_error_at_once(notation, says):
    with pytest.raises(ConfigurationError, match=says):
        open_trace(notation)
