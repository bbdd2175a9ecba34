"""A comparison is worth nothing if its traffic shares other tokens than it says, or changes between runs."""

import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks.vllm.servers.serving import Progress, serve, warm_up
from benchmarks.vllm.traffic.asks import FIRST_TOKEN, LAST_TOKEN, Ask, TokenArray, Workload, shareable_tokens
from benchmarks.vllm.traffic.workloads import WORKLOADS, build, replay_trace


class EchoServer:
    """Answers with the last tokens of the prompt, one a step, oldest request first."""

    def __init__(self) -> None:
        self.submitted: list[int] = []
        self.most_at_once = 0
        self.times_forgotten = 0
        self._running: dict[int, tuple[list[int], list[int]]] = {}

    def submit(self, index: int, prompt: TokenArray, *, answer_tokens: int) -> None:
        self.submitted.append(index)
        self._running[index] = (prompt[-answer_tokens:].tolist(), [])
        self.most_at_once = max(self.most_at_once, len(self._running))

    def step(self) -> list[Progress]:
        index, (wanted, answer) = next(iter(self._running.items()))
        answer.append(wanted[len(answer)])
        finished = len(answer) == len(wanted)
        if finished:
            del self._running[index]
        return [Progress(index=index, answer=list(answer), cached_tokens=index, finished=finished)]

    def forget(self) -> None:
        self.times_forgotten += 1


def tokens(*ids: int) -> TokenArray:
    return np.array(ids, dtype=np.int32)


def prompts_of(workload: Workload) -> list[TokenArray]:
    return [request.prompt for request in serve(workload, EchoServer(), concurrency=1)]


def shared_fraction(workload: Workload) -> float:
    served = serve(workload, EchoServer(), concurrency=1)
    prompts = [request.prompt for request in served]
    shareable = shareable_tokens(prompts, [request.answer for request in served])
    return sum(shareable) / sum(map(len, prompts))


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_name_stands_for_the_same_tokens_every_time(name: str) -> None:
    for first, second in zip(build(name).asks, build(name).asks, strict=True):
        assert first.follows == second.follows
        assert np.array_equal(first.tokens, second.tokens)


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("quick", [False, True])
def test_tokens_are_of_the_vocabulary_and_prompts_fit_the_context(name: str, quick: bool) -> None:
    for prompt in prompts_of(build(name, quick=quick)):
        assert prompt.dtype == np.int32
        assert prompt.min() >= FIRST_TOKEN
        assert prompt.max() <= LAST_TOKEN
        assert len(prompt) < 12_000


def test_questions_share_the_depths_that_are_promised() -> None:
    workload = build("documents-ample")
    prompts = [ask.tokens for ask in workload.asks]
    assert len(prompts) == 72
    shareable = [depth for depth in shareable_tokens(prompts, [[1]] * 72) if depth > 5]
    # One in each document is the first.
    assert len(shareable) == 48
    nearest = np.abs(np.subtract.outer(shareable, (1_400, 3_900, 5_300))).min(axis=1)
    assert nearest.max() <= 100
    assert len(build("documents").asks) == 80


def test_documents_come_in_random_order() -> None:
    documents = [ask.tokens[:100].tobytes() for ask in build("documents").asks]
    assert len(set(documents)) == 20
    assert len(set(documents[:20])) < 20
    assert documents[:4] != [documents[0]] * 4


def test_a_turn_repeats_the_conversation_and_the_answer_before_it() -> None:
    workload = build("chat", quick=True)
    server = EchoServer()
    served = {request.index: request for request in serve(workload, server, concurrency=3)}
    assert sum(ask.follows is None for ask in workload.asks) == 4
    for index, ask in enumerate(workload.asks):
        if ask.follows is None:
            continue
        before = served[ask.follows]
        expected = [*before.prompt, *before.answer, *ask.tokens]
        assert served[index].prompt.tolist() == expected


def test_everything_but_the_first_system_prompt_is_shareable_and_no_more() -> None:
    workload = build("system-prompt")
    shareable = shareable_tokens([ask.tokens for ask in workload.asks], [[1]] * len(workload.asks))
    assert shareable[0] == 0
    assert all(600 <= depth < 605 for depth in shareable[1:])
    assert workload.block_tokens is not None
    assert workload.block_tokens > 600


def test_unique_traffic_shares_nothing() -> None:
    assert shared_fraction(build("unique")) < 1e-3


def test_the_last_token_of_an_answer_is_not_shareable() -> None:
    first, second = tokens(20, 21, 22), tokens(20, 21, 22, 30, 31, 32)
    assert shareable_tokens([first, second], [[30, 31, 32], [1]]) == [0, 5]
    assert shareable_tokens([first, second[:5]], [[30, 31], [1]]) == [0, 4]


def test_a_request_follows_an_earlier_one_only() -> None:
    with pytest.raises(ValueError, match="request 0 follows 0"):
        Workload(
            name="wrong",
            asks=(Ask(tokens=tokens(20), follows=0),),
            answer_tokens=1,
            pool_tokens=1,
            shares_prefixes=False,
        )


@pytest.mark.parametrize("concurrency", [1, 3])
def test_as_many_requests_run_at_a_time_as_asked_for(concurrency: int) -> None:
    workload = build("unique", quick=True)
    server = EchoServer()
    served = serve(workload, server, concurrency=concurrency)
    assert server.most_at_once == concurrency
    assert server.submitted == list(range(len(workload.asks)))
    assert [request.index for request in served] == server.submitted
    assert [request.cached_tokens for request in served] == server.submitted
    assert all(len(request.answer) == workload.answer_tokens for request in served)


def test_a_warm_up_is_answered_and_forgotten() -> None:
    server = EchoServer()
    warm_up(server, num_tokens=100)
    assert len(server.submitted) == 1
    assert server.times_forgotten == 1


def test_the_time_to_the_first_token_starts_at_submission() -> None:
    seconds = iter(range(1_000))
    workload = build("unique", quick=True)
    served = serve(workload, EchoServer(), concurrency=1, clock=lambda: next(seconds))
    # The clock is read at submission and at each of eight tokens.
    assert {request.ttft_seconds for request in served} == {1}


def write_trace(path: Path, *prompts: tuple[list[int], int]) -> Path:
    lines = [
        json.dumps({"hash_ids": ids, "input_length": length, "block_size": 64}) for ids, length in prompts
    ]
    path.write_text("\n".join(lines))
    return path


def test_a_replayed_trace_shares_what_the_log_shared(tmp_path: Path) -> None:
    log = write_trace(tmp_path / "log.jsonl", ([1, 2, 3], 192), ([1, 2, 4], 150), ([5, 2, 3], 192))
    prompts = prompts_of(replay_trace(log, num_requests=9, pool_tokens=1_000))
    assert [len(prompt) for prompt in prompts] == [192, 150, 192]
    assert np.array_equal(prompts[0][:128], prompts[1][:128])
    assert prompts[0][128] != prompts[1][128]
    # Ids are not chained in every log, so a block has the same tokens wherever it stands.
    assert np.array_equal(prompts[0][64:], prompts[2][64:])
    assert len(set(prompts[0].tolist())) > 100


def test_a_long_trace_is_scaled_down_and_cut(tmp_path: Path) -> None:
    ids = list(range(400))
    log = write_trace(tmp_path / "log.jsonl", (ids, 25_600), (ids[:100], 6_400), (ids, 25_600))
    prompts = prompts_of(replay_trace(log, num_requests=9, pool_tokens=1_000))
    # The mean of 19,200 becomes 4,000, so a block of 64 tokens becomes 13.
    assert [len(prompt) for prompt in prompts] == [5_200, 1_300, 5_200]
    assert np.array_equal(prompts[0][:1_300], prompts[1])
    assert len(prompts_of(replay_trace(log, num_requests=2, pool_tokens=1_000))) == 2
    assert len(prompts_of(replay_trace(log, num_requests=9, pool_tokens=1_000, most_tokens=7_000))) == 2


def test_an_unknown_workload_is_named_beside_the_known() -> None:
    with pytest.raises(ValueError, match="no workload named 'poetry'; there are documents-ample"):
        build("poetry")
    with pytest.raises(ValueError, match="give its path"):
        build("trace")
