"""The learned policy: what it keeps of each kind of traffic, at capacities where it has to choose."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from traffic import (
    BLOCK,
    GRID,
    PLENTY,
    STATE_BYTES,
    Server,
    Source,
    conversations,
    document_questions,
    few_among_many,
    segment_keys,
    serve_all,
    serve_trace,
    shared_instructions,
)

from milepost import Footprint, PrefixCache, parse_policy
from milepost.placement import PlacementRequest
from milepost.policies import Situation, learned
from milepost.policies.generations import generation_after
from milepost.policies.learned import LearnedPlacement
from milepost.policies.reuse_model import ReuseModel
from milepost.simulator import replay, simulate
from milepost.store import BranchPoint, SeenPrompt
from milepost.traces import open_trace

BASELINE = "tail+junction"


def shared_tokens(served):
    """Length of the segment that all prompts of a kind begin with."""
    return served.prompt[0][1]


# Traffic of one kind


def test_document_questions_get_a_checkpoint_shortly_before_the_question_and_reuse_it():
    server = serve_all("learned", document_questions(), capacity=30_000)
    asked_again = [s for s in server.second_half() if s.report.unseen < shared_tokens(s) / 2]
    lost = [shared_tokens(s) - s.report.reused for s in asked_again]
    assert len(asked_again) > 70
    assert np.median(lost) <= GRID, "the document is resumed from its last grid position or the one before"
    placed = sum(len(s.positions) for s in server.second_half()) / len(server.second_half())
    assert placed < 0.75, "about one for a document, none for its questions"


def test_of_document_questions_far_more_is_reused_than_by_keeping_tails_and_junctions():
    prompts = list(document_questions())
    baseline = serve_all(BASELINE, prompts, capacity=30_000).reused_fraction
    assert serve_all("learned", prompts, capacity=30_000).reused_fraction > 3 * baseline


def test_states_that_a_conversation_has_passed_go_before_those_at_its_end():
    prompts = list(conversations())
    server = serve_all("learned", prompts, capacity=40_000)
    continued = [s for s in server.second_half() if len(s.prompt) > 1]
    before = [sum(length for _, length in s.prompt[:-1]) for s in continued]
    found = [s.report.reused > depth - 2 * GRID for s, depth in zip(continued, before, strict=True)]
    assert np.mean(found) > 0.95
    assert server.cache.statistics().num_evictions > len(prompts)
    assert server.reused_fraction > 5 * serve_all(BASELINE, prompts, capacity=40_000).reused_fraction


def test_where_prompts_part_behind_shared_instructions_a_state_is_kept():
    prompts = list(shared_instructions())
    server = serve_all("learned", prompts, capacity=12_000)
    assert np.mean([s.report.reused == shared_tokens(s) for s in server.second_half()]) > 0.95
    assert serve_all("tail", prompts, capacity=12_000).reused_fraction == 0.0
    assert server.reused_fraction > 1.5 * serve_all(BASELINE, prompts, capacity=12_000).reused_fraction


def test_what_is_never_asked_again_does_not_displace_what_is():
    prompts = list(few_among_many())
    documents = [
        s for s in serve_all("learned", prompts, capacity=20_000).second_half() if len(s.prompt) == 2
    ]
    assert np.mean([s.report.reused > shared_tokens(s) - 2 * GRID for s in documents]) > 0.95
    assert serve_all(BASELINE, prompts, capacity=20_000).reused_fraction == 0.0


# One after the other, in memory for about one of them


@pytest.mark.parametrize("policy", ["tail", "learned"])
def test_what_one_long_conversation_has_left_does_not_lock_out_the_next(policy):
    trace = open_trace("synthetic:agents,seed=0,concurrency=1,requests=300")
    served = simulate(trace, policy=policy, capacity_kv_tokens=30_000, checkpoint_kv_tokens=1536.0)
    assert served.reused_fraction > 0.5


@pytest.mark.parametrize("policy", ["tail", "tail+junction", "learned"])
def test_a_plan_fits_beside_the_state_that_its_prompt_resumes_from(policy):
    cache = PrefixCache(
        capacity_bytes=30_000,
        footprint=Footprint(checkpoint_bytes=1_536, kv_bytes_per_token=1),
        policy=parse_policy(policy),
        grid=16,
        key_tokens=16,
    )
    trace = open_trace("synthetic:agents,seed=0,concurrency=1,requests=60,block=16")
    reports = [served.report for served in replay(trace, cache)]
    assert max(report.num_tokens for report in reports) > 30_000
    assert sum(report.checkpoints_rejected for report in reports) == 0


def test_the_second_prompt_through_a_place_gets_a_state_there_where_third_ones_come():
    server = serve_all("learned", shared_instructions(), capacity=PLENTY)
    placement = server.cache.policy.placement
    earlier = SeenPrompt(5_000)
    request = PlacementRequest(
        num_tokens=5_000,
        overlap_depth=1_234,
        matched_num_tokens=5_000,
        grid=1,
        checkpoint_bytes=1,
    )
    situation = Situation(request=request, prompt=SeenPrompt(5_000), earlier=earlier)
    assert 1_234 in placement.place_in(situation).positions
    assert 1_234 not in placement.place(request).positions


def situation_of_a_third_prompt(*, num_visits):
    """It leaves the second one 20 tokens before that ends, where that has left the first one or not."""
    branch_point = BranchPoint(800)
    branch_point.visits = num_visits
    request = PlacementRequest(num_tokens=2_000, overlap_depth=800, grid=16, checkpoint_bytes=1)
    return Situation(
        request=request, prompt=SeenPrompt(2_000), earlier=SeenPrompt(820), branch_points=(branch_point,)
    )


def test_where_two_have_left_at_one_token_the_place_is_kept_however_near_the_end_of_the_earlier_one():
    placement = LearnedPlacement(ReuseModel())
    placement._model.price = 1.0
    assert 800 in placement.place_in(situation_of_a_third_prompt(num_visits=1)).positions
    assert 800 not in placement.place_in(situation_of_a_third_prompt(num_visits=0)).positions


@pytest.mark.parametrize(("own_tokens", "watched"), [((16, 16, 2_000), [1_024]), ((16, 16, 16), [])])
def test_where_two_have_left_at_one_token_the_place_is_watched_if_the_third_goes_on(own_tokens, watched):
    prompts = [[("instructions", 1_024), (f"own {n}", size)] for n, size in enumerate(own_tokens)]
    server = serve_all("learned", prompts, capacity=PLENTY)
    keys = segment_keys("instructions", 1_024)
    with server.cache.acquire(keys, num_tokens=1_024) as lease:
        points = lease.situation.branch_points
    assert [point.position for point in points] == [1_024]
    assert [point.position for point in points if point.is_tracked] == watched


def rate_of_documents(beside):
    """What is expected after the tenth question about one of twelve documents, each question followed by
    another request.
    """
    prompts = []
    for n in range(400):
        prompts += [[(f"document {n % 12}", 1_520), (f"question {n}", 16)], beside(n)]
    return serve_all("learned", prompts, capacity=PLENTY).policy.placement._model.fresh_rate(1_536, 10)


def test_what_is_counted_at_branch_points_does_not_make_other_prompts_seem_asked_for_less():
    alone = rate_of_documents(lambda n: [(f"nothing {n}", 1_536)])
    beside = rate_of_documents(lambda n: [(f"instructions {n % 12}", 1_024), (f"own {n}", 512)])
    assert beside > 0.75 * alone


# Against the baseline


@pytest.mark.parametrize("capacity", [20_000, 60_000, 200_000])
@pytest.mark.parametrize(
    "trace",
    [
        "documents,requests=200",
        "chat,requests=350",
        "agents,requests=150",
        "system-prompts,requests=200",
        "uniform,requests=120",
        "drifting,requests=250",
    ],
)
def test_no_less_is_reused_than_by_keeping_tails_and_junctions(trace, capacity):
    name = f"synthetic:{trace},seed=4"
    baseline = serve_trace(BASELINE, name, capacity=capacity).reused_fraction
    # Where a prompt hardly fits, the few that happen to be kept decide.
    slack = 0.03 if trace.startswith("agents") and capacity == 20_000 else 0.005
    assert serve_trace("learned", name, capacity=capacity).reused_fraction >= baseline - slack


# Price


def price_of(server: Server) -> float:
    return server.policy.placement._model.price


def test_memory_costs_nothing_where_there_is_plenty_and_the_more_the_less_there_is():
    prompts = list(shared_instructions())
    prices = [price_of(serve_all("learned", prompts, capacity=c)) for c in (8_000, 20_000, 60_000, PLENTY)]
    assert prices == sorted(prices, reverse=True)
    assert prices[0] > 10 * prices[2]
    assert prices[3] == 0.0


def test_dear_memory_gets_fewer_checkpoints():
    prompts = list(document_questions())
    servers = [serve_all("learned", prompts, capacity=capacity) for capacity in (30_000, PLENTY)]
    dear, free = (sum(len(s.positions) for s in server.second_half()) for server in servers)
    assert 0 < dear < free / 2


def test_traffic_that_is_worth_less_than_what_was_there_before_finds_room_in_time():
    prompts = [[(f"document {n % 3}", 8000), (f"question {n}", 64)] for n in range(200)]
    prompts += [[(f"short {n % 8}", 512), (f"own {n}", 32)] for n in range(300)]
    latest = serve_all("learned", prompts, capacity=20_000).served[-100:]
    baseline = serve_all(BASELINE, prompts, capacity=20_000).served[-100:]
    assert sum(s.report.reused for s in baseline) > 0.8 * sum(s.report.num_tokens for s in baseline)
    assert sum(s.report.reused for s in latest) > 0.9 * sum(s.report.reused for s in baseline)


def long_prompts():
    return [[("long", 16_000), (f"question {n}", 64)] for n in range(30)]


def test_of_a_prompt_longer_than_the_capacity_something_is_kept():
    server = serve_all("learned", long_prompts(), capacity=STATE_BYTES + 3000)
    assert all(GRID <= s.report.reused <= 3000 for s in server.second_half())


def test_of_a_prompt_longer_than_the_capacity_no_less_is_kept_than_the_baseline_keeps():
    baseline = serve_all(BASELINE, long_prompts(), capacity=STATE_BYTES + 3000)
    server = serve_all("learned", long_prompts(), capacity=STATE_BYTES + 3000)
    assert baseline.served[-1].report.reused == 3000 // GRID * GRID
    assert server.served[-1].report.reused > 0.9 * baseline.served[-1].report.reused


def test_the_least_capacity_of_all_is_served():
    server = serve_all("learned", list(document_questions(groups=3)), capacity=STATE_BYTES + GRID)
    assert server.cache.statistics().num_checkpoints <= 1


# Accounts


@pytest.mark.parametrize("capacity", [10_000, 60_000, PLENTY])
def test_every_token_has_one_cause_under_any_mix(capacity):
    server = serve_trace("learned", "synthetic:drifting,requests=150,seed=2", capacity=capacity)
    for served in server.served:
        report = served.report
        parts = (report.reused, report.unseen, report.alignment, report.placement, report.eviction)
        assert min(parts) >= 0
        assert sum(parts) == report.num_tokens
        assert all(position % GRID == 0 for position in served.positions)
        assert all(report.reused < position <= report.num_tokens for position in served.positions)
    held = server.cache.statistics()
    assert held.num_tokens == sum(s.report.num_tokens for s in server.served)
    assert (held.eviction == 0) == (capacity == PLENTY)


def test_the_store_is_whole_after_every_request():
    server = Server("learned", capacity=9_000)
    random = np.random.default_rng(8)
    roots = random.integers(2, 99, (3, 120))
    for _ in range(200):
        # Every prompt parts from one of three somewhere, and some repeat or extend them.
        depth, more = int(random.integers(0, 120)), int(random.integers(1, 20))
        keys = np.concatenate((roots[random.integers(3)][:depth], random.integers(0, 2, more)))
        server.serve(keys, num_tokens=keys.size * 16 - int(random.integers(16)), prompt=[])
        server.cache.check()
    assert server.cache.statistics().num_evictions > 50
    assert server.reused_fraction > 0.1


# Determinism

PLACEMENTS = """
import json
from traffic import serve_trace
server = serve_trace("learned", "synthetic:chat,requests=120,seed=7", capacity=15_000)
print(json.dumps([[s.positions, s.report.reused] for s in server.served]))
"""


def placements(hash_seed: str) -> list:
    here = str(Path(__file__).parent)
    path = os.pathsep.join([here, *sys.path])
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", PLACEMENTS], capture_output=True, check=True, env=environment
    )
    return json.loads(done.stdout)


def test_the_same_traffic_gets_the_same_decisions_in_every_process():
    first, second = placements("1"), placements("2")
    server = serve_trace("learned", "synthetic:chat,requests=120,seed=7", capacity=15_000)
    here = [[list(s.positions), s.report.reused] for s in server.served]
    assert first == second == here
    assert any(reused for _, reused in here)


def test_each_cache_learns_for_itself():
    prompts = list(document_questions(groups=4))
    fresh = serve_all("learned", prompts, capacity=30_000)
    serve_all("learned", conversations(rounds=2), capacity=20_000)
    again = serve_all("learned", prompts, capacity=30_000)
    assert [s.positions for s in fresh.served] == [s.positions for s in again.served]


def test_no_branch_point_is_watched_any_more_that_the_tree_has_lost():
    """Else it would count as one that nobody comes to, for good."""
    policy = parse_policy("learned")
    cache = PrefixCache(
        capacity_bytes=20_000,
        footprint=Footprint(checkpoint_bytes=STATE_BYTES, kv_bytes_per_token=1),
        policy=policy,
        grid=GRID,
        key_tokens=BLOCK,
        history_tokens=60_000,
    )
    for request in open_trace("synthetic:uniform,requests=400,seed=1"):
        with cache.acquire(request.keys, num_tokens=request.num_tokens) as lease:
            cache.commit(lease, cache.plan(lease), Source())
    points = [node.branch_point for node in cache._store.tree.nodes() if node.branch_point is not None]
    num_watched = sum(point.is_tracked for point in points)
    assert sum(policy.lessons.branch_points._present) == num_watched > 0


def test_planning_learns_nothing():
    server = serve_all("learned", document_questions(groups=3), capacity=30_000)
    traffic = server.policy.placement._model
    before = (traffic.price, traffic.scales.copy(), traffic.overlap.num_shared)
    with server.cache.acquire(np.arange(400)) as lease:
        assert server.cache.plan(lease) == server.cache.plan(lease)
    assert (traffic.price, traffic.overlap.num_shared) == (before[0], before[2])
    assert np.array_equal(traffic.scales, before[1])


def test_no_request_waits_for_a_compiler():
    program = """
import gc
from milepost.kernels import Kernel
from milepost.policies import learned
from milepost.simulator import simulate
from milepost.traces import open_trace

def compiled():
    kernels = [each for each in gc.get_objects() if isinstance(each, Kernel)]
    return sorted(each.__qualname__ for each in kernels if each.is_compiled)

assert compiled() == []
learned()
before = compiled()
simulate(open_trace("synthetic:drifting,requests=80,seed=2"), policy="learned", capacity_kv_tokens=20_000,
         checkpoint_kv_tokens=100)
assert compiled() == before, (before, compiled())
assert {"mix", "_best_plan_within", "_add", "_solve_indices"} <= set(before)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


# Placement alone


def taught(*, price: float = 0.0) -> LearnedPlacement:
    """Knows that prompts diverge anywhere, and that three in four are followed."""
    traffic = ReuseModel()
    random = np.random.default_rng(2)
    for _ in range(200):
        traffic.overlap.observe(int(random.integers(1000, 19_000)), 20_000)
    traffic.price = price
    return LearnedPlacement(traffic)


@pytest.mark.parametrize("worth_of_byte", [0.02, 0.04])
def test_of_the_plans_that_are_worth_their_room_the_one_is_taken_that_is_worth_most_over_it(worth_of_byte):
    request = PlacementRequest(num_tokens=20_000, grid=GRID, checkpoint_bytes=1000)
    situation = Situation(
        request=request, prompt=SeenPrompt(20_000), room_worth=lambda num_bytes: worth_of_byte * num_bytes
    )
    largest, best = (taught(price=price).place(request) for price in (0.0, worth_of_byte))
    assert 0 < len(best.positions) < len(largest.positions)
    assert taught().place_in(situation) == best


def test_nothing_is_placed_where_nothing_can_be():
    policy = taught()
    assert policy.place(PlacementRequest(num_tokens=1)).positions == ()
    assert policy.place(PlacementRequest(num_tokens=63, grid=64)).positions == ()
    assert policy.place(PlacementRequest(num_tokens=5000, max_checkpoints=0)).positions == ()


def test_dearer_states_are_fewer():
    request = PlacementRequest(num_tokens=20_000, grid=GRID, checkpoint_bytes=1000)
    counts = [len(taught(price=p).place(request).positions) for p in (0.0, 0.02, 0.2, 2.0, 1e9)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[1] > counts[2] > counts[4] == 0


def test_a_quadratic_cost_moves_checkpoints_deeper():
    request = PlacementRequest(num_tokens=20_000, grid=GRID, checkpoint_bytes=1000)
    linear = taught(price=0.5).place(request).positions
    quadratic = taught(price=0.5).place(replace(request, cost=lambda p: p * (p / 10_000.0))).positions
    assert linear
    assert min(quadratic) > min(linear)


def test_kv_that_is_dear_and_missing_keeps_checkpoints_shallow():
    request = PlacementRequest(num_tokens=20_000, grid=GRID, checkpoint_bytes=1000, kv_bytes_per_token=1)
    policy = taught(price=0.05)
    missing = policy.place(request).positions
    resident = policy.place(replace(request, resident_kv_tokens=20_000)).positions
    assert max(missing) < max(resident)


@pytest.mark.parametrize(
    ("num_tokens", "depth", "generation"),
    [
        (5000, 63, None),  # the template that every prompt begins with
        (5000, 64, 0),
        (5000, 2500, 4),
        (100, 50, 4),  # most of a short prompt is more than a template
        (100, 49, None),
    ],
)
def test_a_prompt_continues_another_where_it_shares_half_of_it(num_tokens, depth, generation):
    assert generation_after(SeenPrompt(num_tokens, generation=3), depth) == generation


def test_both_halves_of_the_policy_learn_from_the_same_traffic():
    policy = learned()
    assert policy.placement._model is policy.eviction._model
    assert policy.eviction.scales is policy.placement._model.scales
