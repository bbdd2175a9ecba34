"""Rebuilding the paper's requests needs no log: a FIFO of two or three made-up documents says it all."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from benchmarks.paper.fifo import replay_fifo
from benchmarks.paper.learned import LAYER_GROUP, fifo_bytes, read_before, replay_cache
from benchmarks.paper.published import PublishedDP, read_histogram
from benchmarks.paper.rebuild import LoggedRequest, RebuiltLog, read_log, rebuild

from benchmarks.paper import measure, missing_logs
from milepost.errors import InvalidRequestError, TraceFormatError
from milepost.placement import Balanced, Dense, NoCheckpoints, PlacementRequest
from milepost.tokens import common_prefix_length


def hit(document: str, num_tokens: int, overlap_depth: int) -> LoggedRequest:
    return LoggedRequest(document=document, num_tokens=num_tokens, is_hit=True, overlap_depth=overlap_depth)


def miss(document: str, num_tokens: int) -> LoggedRequest:
    return LoggedRequest(document=document, num_tokens=num_tokens, is_hit=False, overlap_depth=0)


# A FIFO of two: the third request finds the first two cached, the fourth has lost document a.
LOG = (miss("a", 500), miss("b", 300), hit("a", 520, 450), miss("c", 400), hit("a", 510, 448), miss("b", 320))


def overlap(rebuilt: RebuiltLog, later: int, earlier: int) -> int:
    requests = rebuilt.requests
    return common_prefix_length(requests[later].tokens, requests[earlier].tokens)


@pytest.mark.parametrize("by_document", [False, True])
def test_every_request_overlaps_with_what_is_cached_as_deep_as_logged(by_document: bool) -> None:
    rebuilt = rebuild(LOG, num_cached=2, by_document=by_document)
    for index, logged in enumerate(LOG):
        cached = range(max(0, index - 2), index)
        same = [k for k in cached if rebuilt.requests[k].document == logged.document]
        assert max((overlap(rebuilt, index, k) for k in same), default=0) == logged.overlap_depth
        assert rebuilt.requests[index].tokens.size == logged.num_tokens
    assert rebuilt.num_tokens == sum(each.num_tokens for each in LOG)


def test_a_miss_is_all_its_own_as_logged_and_shares_its_document_by_document() -> None:
    log = (miss("a", 500), hit("a", 520, 450), miss("b", 300), miss("c", 300), miss("a", 600))
    assert overlap(rebuild(log, num_cached=2), 4, 1) == 0
    assert overlap(rebuild(log, num_cached=2, by_document=True), 4, 1) == 450


def test_documents_share_nothing() -> None:
    rebuilt = rebuild(LOG, num_cached=2, by_document=True)
    assert overlap(rebuilt, 1, 0) == overlap(rebuilt, 3, 2) == 0


def test_a_hit_that_no_logged_request_explains_was_in_the_warm_up() -> None:
    rebuilt = rebuild((hit("a", 300, 256), hit("b", 300, 192), hit("a", 300, 200)), num_cached=3)
    assert [request.document for request in rebuilt.warmup] == ["a", "b"]
    assert common_prefix_length(rebuilt.warmup[0].tokens, rebuilt.requests[0].tokens) == 256
    assert overlap(rebuilt, 2, 0) == 200


def test_a_log_that_contradicts_its_fifo_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="request 1 misses document 'a' although it is cached"):
        rebuild((miss("a", 100), miss("a", 100)), num_cached=2)
    with pytest.raises(InvalidRequestError, match="request 2 hits 64 tokens of document 'c'"):
        rebuild((miss("a", 100), miss("b", 100), hit("c", 100, 64)), num_cached=2)


@pytest.mark.parametrize(("is_hit", "overlap_depth"), [(True, 0), (True, 101), (False, 1)])
def test_an_impossible_line_is_refused(is_hit: bool, overlap_depth: int) -> None:
    with pytest.raises(InvalidRequestError, match="a hit shares 1 to all of its tokens, a miss none"):
        LoggedRequest(document="a", num_tokens=100, is_hit=is_hit, overlap_depth=overlap_depth)


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "quality.jsonl"
    good = {"conv_id": "a", "seq_len": 100, "hit": False, "prefix_match": 0}
    path.write_text(json.dumps(good) + "\n{\n", encoding="utf-8")
    with pytest.raises(TraceFormatError, match="line 2"):
        read_log(path)
    path.write_text(json.dumps(good) + "\n", encoding="utf-8")
    assert read_log(path) == [miss("a", 100)]


def test_the_fifo_saves_what_the_best_entry_reaches_and_counts_all_checkpoints() -> None:
    rebuilt = rebuild((miss("a", 512), hit("a", 512, 400), miss("b", 512)), num_cached=2)
    result = replay_fifo(rebuilt, Dense(every=128), num_cached=2)
    assert result.saved_fraction == pytest.approx(384 / 1536)
    assert result.checkpoints_per_entry == 4.0
    nothing = replay_fifo(rebuilt, NoCheckpoints(), num_cached=2)
    assert (nothing.saved_fraction, nothing.checkpoints_per_entry) == (0.0, 0.0)


def test_the_fifo_forgets_what_is_older_than_its_size() -> None:
    rebuilt = rebuild(LOG, num_cached=2)
    saved = replay_fifo(rebuilt, Dense(every=64), num_cached=2).saved_fraction
    # Twice to 448, of which one request was evicted for its age by a FIFO of one.
    assert saved * rebuilt.num_tokens == pytest.approx(2 * 448)
    assert replay_fifo(rebuilt, Dense(every=64), num_cached=1).saved_fraction == 0.0


def test_entries_of_the_warm_up_are_placed_by_their_own_policy() -> None:
    rebuilt = rebuild((hit("a", 512, 500), miss("b", 512)), num_cached=2)
    result = replay_fifo(rebuilt, NoCheckpoints(), num_cached=2, warmup_policy=Balanced(count=1))
    assert result.saved_fraction * rebuilt.num_tokens == pytest.approx(256)
    assert result.checkpoints_per_entry == 0.0


def test_the_published_planner_has_one_plan_for_all_lengths() -> None:
    policy = PublishedDP(2, histogram=((640, 3.0), (6400, 2.0)))
    assert policy.place(PlacementRequest(num_tokens=8000, grid=64)).positions == (640, 6400)
    assert policy.place(PlacementRequest(num_tokens=1000, grid=64)).positions == (640,)


def test_the_published_planner_is_stale_for_ten_requests() -> None:
    policy = PublishedDP(1, histogram=((640, 1.0),))
    request = PlacementRequest(num_tokens=8000, overlap_depth=6400, grid=64)
    plans = []
    for _ in range(10):
        policy.observe(request)
        plans.append(policy.place(request).positions)
    assert plans == [(640,)] * 9 + [(6400,)]


def test_the_learned_histogram_is_read_from_where_the_run_began(tmp_path: Path) -> None:
    path = tmp_path / "histograms.json"
    log = [{"n_obs": 600, "counts": [70.0, 0.0, 1.5]}, {"n_obs": 610, "counts": [60.0, 9.0, 1.4]}]
    path.write_text(json.dumps({"bin_size": 64, "histogram_log": log}), encoding="utf-8")
    assert read_histogram(path) == [(128, 1.5)]


def test_the_cache_reuses_more_the_denser_and_counts_shared_checkpoints_once() -> None:
    rebuilt = rebuild([miss("a", 6400)] + [hit("a", 6400, 6200)] * 5, num_cached=6)
    capacity = fifo_bytes(rebuilt, num_cached=6, checkpoints_per_entry=0.0)
    assert capacity == 6 * 6400 * LAYER_GROUP.kv_bytes_per_token
    results = [
        replay_cache(rebuilt, policy, num_cached=6, capacity_bytes=capacity)
        for policy in ("none", "dense:4096", "dense:3072")
    ]
    assert results[0].saved_fraction == results[0].checkpoints_per_request == 0.0
    assert all(one.saved_fraction < other.saved_fraction for one, other in pairwise(results))
    assert results[1].saved_fraction == pytest.approx(5 * 4096 / (6 * 6400))
    # All six entries share the one checkpoint of the first.
    assert results[1].checkpoints_per_entry == pytest.approx(1 / 6)


def test_what_is_read_before_has_the_same_overlaps_and_no_token_in_common() -> None:
    rebuilt = rebuild(LOG, num_cached=2)
    before = read_before(rebuilt)
    assert [each.document for each in before] == [each.document for each in rebuilt.requests]
    assert common_prefix_length(before[2].tokens, before[0].tokens) == 450
    assert common_prefix_length(before[0].tokens, rebuilt.requests[0].tokens) == 0


def test_absent_logs_are_named(tmp_path: Path) -> None:
    assert "quality_clean_requests.jsonl" in missing_logs(tmp_path)


def test_the_report_puts_the_paper_beside_ours(tmp_path: Path) -> None:
    lines = [{"conv_id": "a", "seq_len": 6400, "hit": False, "prefix_match": 0}]
    lines += [{"conv_id": "a", "seq_len": 6400, "hit": True, "prefix_match": 6200}] * 5
    text = "".join(json.dumps(line) + "\n" for line in lines)
    for name in ("quality_clean", "system_prompts_clean"):
        (tmp_path / f"{name}_requests.jsonl").write_text(text, encoding="utf-8")
        (tmp_path / f"{name}_table.json").write_text(json.dumps(table()), encoding="utf-8")
    rows = {row.name: row for row in measure(tmp_path)}
    dense = rows["QuALITY: dense:4096"]
    assert dense.reached
    assert dense.numbers["saved_fraction"] == pytest.approx(5 * 4096 / (6 * 6400))
    assert not rows["QuALITY: balanced:1"].reached
    assert any("learned" in name for name in rows)


def table() -> dict[str, object]:
    """A table in which only dense:4096 is right."""
    strategies = [f"block_{every}" for every in (64, 256, 512, 1024, 2048, 4096)]
    strategies += [f"balanced_{count}" for count in (1, 3, 5, 8, 12, 16, 30)]
    strategies += ["log", "sqrt"]
    strategies += [f"dp_{count}" for count in (1, 2, 3, 5, 12, 20, 25, 30)]
    saved = {"block_4096": 5 * 4096 / (6 * 6400)}
    return {
        "rows": [
            {"strategy": name, "saved_fraction": saved.get(name, 0.99), "mean_checkpoints_per_entry": 1.0}
            for name in strategies
        ]
    }
