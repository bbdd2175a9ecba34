"""Fixed distances are chosen as if every set had been tried."""

from itertools import combinations

import numpy as np
import pytest

from milepost.placement import PlacementRequest
from milepost.recommend import Offsets, TrafficProfile
from milepost.recommend.profile import ProfileBuilder


def profile_of(*sharings: tuple[int, int]) -> TrafficProfile:
    depths, lengths = zip(*sharings, strict=True) if sharings else ((), ())
    return TrafficProfile(np.array(lengths or (1,)), np.array(depths, np.int64), np.array(lengths, np.int64))


def saved(profile: TrafficProfile, offsets: Offsets, *, grid: int) -> int:
    total = 0
    for depth, length in zip(profile.overlap_depths, profile.shared_lengths, strict=True):
        positions = [*offsets.from_start, *((length - end) // grid * grid for end in offsets.from_end)]
        total += max((int(p) for p in positions if 0 < p <= depth), default=0)
    return total


def test_questions_after_documents_of_any_length_want_a_distance_from_the_end() -> None:
    sharings = [(length - 96, length) for length in (4000, 5104, 6208, 7312)]
    assert profile_of(*sharings).best_offsets(grid=16, largest=1) == [Offsets(from_end=(96,))]


def test_one_shared_system_prompt_wants_a_distance_from_the_start() -> None:
    sharings = [(2048, length) for length in (2500, 4000, 6000, 9000)]
    assert profile_of(*sharings).best_offsets(grid=64, largest=1) == [Offsets(from_start=(2048,))]


def test_sets_grow_while_one_more_saves_anything() -> None:
    mixed = profile_of((1024, 9000), (1024, 7000), (5904, 6000), (7904, 8000))
    sets = mixed.best_offsets(grid=16, largest=4)
    assert sets[0] == Offsets(from_end=(96,))
    assert sets[1] == Offsets(from_start=(1024,), from_end=(96,))
    assert len(sets) == 2
    totals = [saved(mixed, each, grid=16) for each in sets]
    assert totals[0] < totals[1]


@pytest.mark.parametrize("seed", range(5))
def test_the_first_is_the_best_of_all_and_two_are_close_to_the_best_two(seed: int) -> None:
    random = np.random.default_rng(seed)
    lengths = random.integers(200, 4000, 12)
    depths = (lengths * random.random(12)).astype(np.int64)
    profile = profile_of(*zip(depths.tolist(), lengths.tolist(), strict=True))
    grid = 16
    singles = [Offsets(from_start=(int(d) // grid * grid,)) for d in depths if d >= grid]
    singles += [
        Offsets(from_end=(-(-int(n - d) // grid) * grid,)) for d, n in zip(depths, lengths, strict=True)
    ]
    pairs = [
        Offsets(a.from_start + b.from_start, a.from_end + b.from_end) for a, b in combinations(singles, 2)
    ]
    one, two = profile.best_offsets(grid=grid, largest=2)
    assert saved(profile, one, grid=grid) == max(saved(profile, each, grid=grid) for each in singles)
    assert saved(profile, two, grid=grid) >= 0.63 * max(saved(profile, each, grid=grid) for each in pairs)


def test_traffic_that_shares_nothing_wants_nothing() -> None:
    assert profile_of().best_offsets(grid=64, largest=4) == []


def test_only_what_is_shared_beyond_a_template_is_collected() -> None:
    builder = ProfileBuilder()
    builder.add(PlacementRequest(num_tokens=500))
    builder.add(PlacementRequest(num_tokens=600, overlap_depth=63, matched_num_tokens=500))
    builder.add(PlacementRequest(num_tokens=700, overlap_depth=400, matched_num_tokens=500))
    builder.add(PlacementRequest(num_tokens=500, overlap_depth=500, matched_num_tokens=500))
    profile = builder.build()
    assert profile.num_tokens.tolist() == [500, 600, 700, 500]
    # The last token is computed in any case.
    assert profile.overlap_depths.tolist() == [400, 499]
    assert profile.shared_lengths.tolist() == [500, 500]
    assert profile.longest_tokens == 700
