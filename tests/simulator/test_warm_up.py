"""The beginning of a trace warms the caches up and is left out of every figure, and of nothing else."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from milepost.cli.program import app
from milepost.errors import ConfigurationError
from milepost.simulator import SweepPoint, TraceSource, WarmUp, replay, simulate, simulate_all, sweep
from milepost.simulator.setting import Setting, nominal_footprint
from milepost.traces import TraceRequest, open_trace, write_trace

CHAT = "synthetic:chat,requests=60,seed=4,rate=2"
COSTS = {"capacity_kv_tokens": 20_000, "checkpoint_kv_tokens": 500}
POLICIES = ("learned", "tail", "clairvoyant", "vllm")


def settings() -> list[Setting]:
    return [
        Setting(policy=policy, capacity_kv_tokens=20_000, footprint=nominal_footprint(500))
        for policy in POLICIES
    ]


def counted_by_hand(setting: Setting, after: int) -> tuple[int, int, int]:
    """Requests, tokens and reused tokens of those after the first ``after``."""
    requests = list(open_trace(CHAT))
    cache = setting.build_cache(key_tokens=requests[0].key_tokens, grid=requests[0].key_tokens)
    if cache.policy.prepare is not None:
        cache.policy.prepare(requests)
    reports = [replayed.report for replayed in replay(requests, cache)][after:]
    return len(reports), sum(r.num_tokens for r in reports), sum(r.reused for r in reports)


@pytest.mark.parametrize("after", [WarmUp(requests=15), WarmUp(share=0.25)], ids=["requests", "a share"])
def test_figures_are_those_of_the_requests_behind_the_warm_up(after):
    results = simulate_all(open_trace(CHAT), settings(), after=after)
    for setting, result in zip(settings(), results, strict=True):
        found = (result.num_requests, result.input_tokens, result.reused_tokens)
        assert found == counted_by_hand(setting, 15)
        assert result.num_warm_up_requests == 15
        lost = result.lost
        assert sum((lost.unseen, lost.placement, lost.eviction, lost.alignment)) == (
            result.input_tokens - result.reused_tokens
        )
        assert result.reused_fraction <= result.ceiling_fraction


def test_what_was_seen_in_the_warm_up_can_be_reused_behind_it_and_is_in_the_ceiling():
    keys = np.arange(8, dtype=np.int64)
    twice = [
        TraceRequest(keys=keys, key_tokens=16, num_tokens=128, request_id=str(index)) for index in range(2)
    ]
    result = simulate(twice, policy="dense:16", after=WarmUp(requests=1), **COSTS)
    assert (result.num_requests, result.reused_tokens, result.ceiling_fraction) == (1, 112, 112 / 128)
    alone = simulate(twice[1:], policy="dense:16", **COSTS)
    assert (alone.reused_tokens, alone.ceiling_fraction) == (0, 0)


def test_a_time_is_by_the_clock_of_the_log():
    times = [request.arrival_seconds for request in open_trace(CHAT)]
    seconds = times[20] - times[0]
    result = simulate(open_trace(CHAT), policy="tail", after=WarmUp(seconds=seconds), **COSTS)
    assert result.num_warm_up_requests == 20


def test_no_warm_up_is_every_figure_as_before():
    plain = simulate(open_trace(CHAT), policy="learned", **COSTS)
    for after in (None, WarmUp(), WarmUp(share=0.0), WarmUp(seconds=0.0)):
        assert simulate(open_trace(CHAT), policy="learned", after=after, **COSTS) == plain


def test_who_watches_sees_what_is_counted():
    seen = []
    simulate(open_trace(CHAT), policy="tail", after=WarmUp(requests=50), observe=seen.append, **COSTS)
    assert len(seen) == 10


def test_a_sweep_finds_the_same_figures_and_tells_points_with_a_warm_up_from_those_without(tmp_path):
    path = tmp_path / "chat.jsonl"
    write_trace(open_trace(CHAT), path)
    points = [SweepPoint(TraceSource(str(path)), setting) for setting in settings()]
    output = tmp_path / "out.jsonl"
    for after, number in ((None, 0), (WarmUp(share=0.25), 15), (WarmUp(requests=15), 15)):
        outcome = sweep(points, after=after, output=output)
        expected = simulate_all(open_trace(path), settings(), after=after)
        assert list(outcome.results) == expected
        assert {result.num_warm_up_requests for result in outcome.results} == {number}
    assert outcome.num_resumed == len(points)
    assert len(output.read_text().splitlines()) == 2 * len(points)


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("0", WarmUp()),
        ("1000", WarmUp(requests=1000)),
        ("10k", WarmUp(requests=10_000)),
        ("1.5k", WarmUp(requests=1_500)),
        ("10%", WarmUp(share=0.1)),
        ("0.25", WarmUp(share=0.25)),
        ("12.5 %", WarmUp(share=0.125)),
        ("90s", WarmUp(seconds=90.0)),
        ("10min", WarmUp(seconds=600.0)),
        ("2h", WarmUp(seconds=7200.0)),
        ("1d", WarmUp(seconds=86_400.0)),
    ],
)
def test_amounts_are_written_as_people_write_them(text, means):
    assert WarmUp.parse(text) == means


@pytest.mark.parametrize("text", ["", "-5", "100%", "150%", "1.5", "soon", "5m", "10%%", "1e3", "nan"])
def test_what_is_no_amount_is_an_error(text):
    with pytest.raises(ConfigurationError, match="after="):
        WarmUp.parse(text)


@pytest.mark.parametrize(
    "given",
    [{"requests": -1}, {"share": 1.0}, {"share": -0.1}, {"seconds": -1.0}, {"requests": 1, "share": 0.1}],
)
def test_a_warm_up_is_one_amount_of_at_least_nothing(given):
    with pytest.raises(ConfigurationError, match="WarmUp"):
        WarmUp(**given)


@pytest.mark.parametrize("after", [WarmUp(requests=60), WarmUp(requests=10_000), WarmUp(seconds=1e9)])
def test_a_warm_up_that_leaves_nothing_to_count_is_an_error(after):
    with pytest.raises(ConfigurationError, match="leaves none of 60 to count"):
        simulate(open_trace(CHAT), policy="tail", after=after, **COSTS)


def test_a_time_without_times_is_an_error_that_says_what_else_there_is(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"tokens": [1, 2]}\n' * 3)
    with pytest.raises(ConfigurationError, match=r"request '1' has no time.*--after 10%"):
        simulate(open_trace(path), policy="tail", after=WarmUp(seconds=5), **COSTS)


@pytest.mark.parametrize("command", ["simulate", "sweep", "recommend", "report"])
def test_every_replay_takes_it_and_says_it(command, tmp_path):
    arguments = [
        command,
        CHAT,
        "--capacity-kv-tokens",
        "20k",
        "--checkpoint-kv-tokens",
        "500",
        "--after",
        "25%",
    ]
    if command in ("sweep", "report"):
        arguments += ["--output", str(tmp_path / "out")]
    if command == "recommend":
        arguments += ["--engine", "vllm"]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    results = told if isinstance(told, list) else told.get("results", [told])
    assert {(result["num_requests"], result["num_warm_up_requests"]) for result in results} == {(45, 15)}
    if command == "report":
        assert "45 requests after 15 that warm the caches up" in (tmp_path / "out" / "index.html").read_text()
    else:
        assert "15 to warm up" in " ".join(CliRunner().invoke(app, arguments).stdout.split())


@pytest.mark.parametrize("command", ["simulate", "recommend"])
def test_a_bad_amount_is_an_error_of_usage(command):
    arguments = [
        command,
        CHAT,
        "--capacity-kv-tokens",
        "20k",
        "--checkpoint-kv-tokens",
        "500",
        "--after",
        "soon",
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert "--after" in done.output
