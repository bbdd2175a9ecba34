"""The learned policy on small traffic of each kind, with memory for everything that a policy places.

A prompt is a list of segments, each with its own tokens; two prompts share the segments that lead both.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from milepost.overlap import OverlapModel
from milepost.placement import (
    Balanced,
    HistogramDP,
    PlacementPolicy,
    PlacementRequest,
    Planned,
    PromptTail,
    TailAndJunction,
)

GRID = 64
CHECKPOINT_KV_TOKENS = 1536


@dataclass
class Outcome:
    """What a policy placed, request by request, and how much of all prompts it saved."""

    placements: list[tuple[int, ...]] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    reused: list[int] = field(default_factory=list)

    @property
    def reused_fraction(self):
        return sum(self.reused) / sum(self.lengths)

    @property
    def checkpoints_per_request(self):
        return sum(map(len, self.placements)) / len(self.placements)


def shared(left, right):
    depth = 0
    for (name, length), (other_name, other_length) in zip(left, right, strict=False):
        if name != other_name:
            break
        depth += min(length, other_length)
        if length != other_length:
            break
    return depth


def replay(policy: PlacementPolicy, prompts, **known) -> Outcome:
    """Serve the prompts in turn; every checkpoint stays, so that only placement is judged."""
    outcome, stored = Outcome(), []
    for prompt in prompts:
        num_tokens = sum(length for _, length in prompt)
        overlap_depth, matched = 0, None
        usable = set()
        for earlier, positions in stored:
            depth = shared(prompt, earlier)
            if depth and depth >= overlap_depth:
                overlap_depth, matched = depth, sum(length for _, length in earlier)
            usable.update(p for p in positions if p <= depth)
        resume_position = max((p for p in usable if p < num_tokens), default=0)
        request = PlacementRequest(
            num_tokens=num_tokens,
            overlap_depth=overlap_depth,
            resume_position=resume_position,
            grid=GRID,
            checkpoint_positions=tuple(sorted(usable)),
            checkpoint_kv_tokens=CHECKPOINT_KV_TOKENS,
            matched_num_tokens=matched,
            **known,
        )
        positions = policy.place(request).positions
        policy.observe(request)
        stored.append((prompt, positions))
        outcome.placements.append(positions)
        outcome.lengths.append(num_tokens)
        outcome.reused.append(resume_position)
    return outcome


def document_questions(documents=40, questions=5, seed=0):
    """Several questions at the end of each long document, four documents at a time."""
    random = np.random.default_rng(seed)
    prompts = []
    for group in range(0, documents, 4):
        sizes = {name: int(random.integers(3000, 8000)) for name in range(group, group + 4)}
        for turn in range(questions):
            prompts += [
                [(f"document {name}", size), (f"question {name}.{turn}", int(random.integers(20, 150)))]
                for name, size in sizes.items()
            ]
    return prompts


def conversations(count=40, turns=5, seed=0):
    """Conversations whose next prompt is the last one with a reply and a new message."""
    random = np.random.default_rng(seed)
    prompts = []
    for name in range(count):
        prompt = []
        for turn in range(turns):
            prompt = [*prompt, (f"turn {name}.{turn}", int(random.integers(150, 900)))]
            prompts.append(prompt)
    return prompts


def shared_instructions(count=120, seed=0):
    """One of three system prompts, then something that is never seen again."""
    random = np.random.default_rng(seed)
    sizes = [1500, 2300, 4000]
    return [
        [(f"instructions {which}", sizes[which]), (f"own {name}", int(random.integers(300, 3000)))]
        for name, which in enumerate(random.integers(0, 3, count))
    ]


def test_before_any_sharing_it_places_the_tail_the_junction_and_one_state_a_little_before_the_end():
    request = PlacementRequest(num_tokens=5000, overlap_depth=2000, grid=GRID)
    assert set(TailAndJunction().place(request).positions) == {1984, 4992}
    assert Planned().place(request).positions == (1984, 4672, 4992)


def test_a_question_longer_than_a_grid_step_does_not_lose_the_second_sighting():
    first = PlacementRequest(num_tokens=5000, grid=GRID)
    parts_at = 4800
    assert max(TailAndJunction().place(first).positions) > parts_at, "the tail lies inside the question"
    assert any(parts_at - 256 < position <= parts_at for position in Planned().place(first).positions)


def test_document_questions_get_about_one_checkpoint_before_the_question():
    prompts = document_questions()
    planned = replay(Planned(), prompts)
    tail_end = range(len(prompts) // 2, len(prompts))
    first_of_document = [i for i in tail_end if planned.reused[i] == 0]
    assert all(1 <= len(planned.placements[i]) <= 2 for i in first_of_document)
    near_end = [0 <= prompts[i][0][1] - planned.placements[i][-1] <= 3 * GRID for i in first_of_document]
    assert sum(near_end) >= 0.9 * len(near_end)
    assert planned.checkpoints_per_request < 0.75


def test_document_questions_reuse_far_more_than_equal_numbers_placed_otherwise():
    prompts = document_questions()
    planned = replay(Planned(), prompts)
    balanced = replay(Balanced(count=3), prompts)
    histogram = replay(HistogramDP(count=3), prompts)
    assert planned.checkpoints_per_request <= balanced.checkpoints_per_request
    assert planned.checkpoints_per_request <= histogram.checkpoints_per_request
    assert planned.reused_fraction > 1.15 * balanced.reused_fraction
    assert planned.reused_fraction > 1.15 * histogram.reused_fraction
    assert planned.reused_fraction > 0.95 * replay(Balanced(count=10_000), prompts).reused_fraction


def test_conversations_get_the_tail():
    prompts = conversations()
    planned, tail = replay(Planned(), prompts), replay(PromptTail(), prompts)
    balanced = replay(Balanced(count=1), prompts)
    assert planned.reused_fraction > 0.97 * tail.reused_fraction
    assert planned.reused_fraction > 1.5 * balanced.reused_fraction
    assert planned.checkpoints_per_request <= 1.1


def test_shared_instructions_get_the_place_where_they_end():
    prompts = shared_instructions()
    planned, tail = replay(Planned(), prompts), replay(PromptTail(), prompts)
    balanced = replay(Balanced(count=2), prompts)
    everywhere = replay(Balanced(count=10_000), prompts)
    assert planned.reused_fraction > 0.95 * everywhere.reused_fraction
    assert planned.reused_fraction > balanced.reused_fraction
    # Most of them in the first requests, before there is evidence.
    assert planned.checkpoints_per_request < balanced.checkpoints_per_request / 3
    assert tail.reused_fraction < 0.1


def test_mixed_traffic_gets_what_each_kind_needs():
    documents, chats = document_questions(), conversations()
    prompts = [prompt for pair in zip(documents, chats, strict=True) for prompt in pair]
    planned, engine = replay(Planned(), prompts), replay(TailAndJunction(), prompts)
    assert planned.reused_fraction > engine.reused_fraction
    assert planned.checkpoints_per_request < 1.5


def test_a_cap_on_checkpoints_keeps_the_best_plan_of_that_size():
    prompts = document_questions()
    capped = replay(Planned(), prompts, max_checkpoints=1)
    assert max(map(len, capped.placements)) == 1
    assert capped.reused_fraction > 0.85 * replay(Planned(), prompts).reused_fraction


def taught(**options):
    model = OverlapModel()
    random = np.random.default_rng(2)
    for _ in range(200):
        model.observe(int(random.integers(1000, 19_000)), 20_000)
    return Planned(model=model, **options)


def test_dearer_checkpoints_are_fewer():
    policy = taught()
    counts = [
        len(
            policy.place(PlacementRequest(num_tokens=20_000, grid=GRID, checkpoint_kv_tokens=price)).positions
        )
        for price in (0.0, 800.0, 6700.0, float("inf"))
    ]
    assert 32 >= counts[0] > counts[1] > counts[2] >= counts[3] >= 1


def test_a_quadratic_cost_moves_checkpoints_deeper():
    request = PlacementRequest(num_tokens=20_000, grid=GRID, max_checkpoints=1)
    in_tokens = taught().place(request).positions
    quadratic = taught().place(replace(request, cost=lambda p: p * (1.0 + p / 5000.0))).positions
    assert quadratic > in_tokens


def test_a_checkpoint_that_replaces_a_dead_one_is_placed_where_one_that_joins_it_is_not():
    going_on, asking = OverlapModel(), OverlapModel()
    random = np.random.default_rng(6)
    for length in random.integers(2000, 9000, 100):
        going_on.observe(int(length), int(length))
        asking.observe(int(length) - int(random.integers(500, 1000)), int(length))
    known = {"num_tokens": 6000, "overlap_depth": 5000, "resume_position": 4992, "grid": GRID}
    request = PlacementRequest(**known, matched_num_tokens=5000, checkpoint_kv_tokens=CHECKPOINT_KV_TOKENS)
    assert Planned(model=going_on).place(request).positions == (5952,)
    assert Planned(model=asking).place(request).positions == ()


def test_nothing_is_placed_where_nothing_can_be():
    policy = taught()
    assert policy.place(PlacementRequest(num_tokens=1)).positions == ()
    assert policy.place(PlacementRequest(num_tokens=63, grid=64)).positions == ()
    assert policy.place(PlacementRequest(num_tokens=5000, max_checkpoints=0)).positions == ()
