"""What replicas have learned is one policy's knowledge: counts add up exactly, what fades closely."""

import json

import numpy as np
import pytest
from traffic import (
    GRID,
    PLENTY,
    STATE_BYTES,
    Server,
    conversations,
    document_questions,
    segment_keys,
    serve_all,
)

from milepost.errors import ConfigurationError
from milepost.footprint import Footprint
from milepost.overlap import BoundaryModel, DecayedHistogram, OverlapModel
from milepost.placement import Dense
from milepost.policies import LessonsSummary, learned, load_lessons, merge_lessons, save_lessons
from milepost.policies.learned import with_learned_eviction
from milepost.prefix_cache import PrefixCache
from milepost.reuse import ReturnRates


def same_places():
    """Return a policy that places alike whatever it has learned."""
    return with_learned_eviction(Dense(every=1024))


def of_replica(name, *, seed, groups=6):
    """Questions about documents that no other replica has."""
    for prompt in document_questions(groups=groups, seed=seed):
        yield [(f"{name} {segment}", length) for segment, length in prompt]


def templates(name, *, count, depth):
    """Pairs of prompts: the second shares the first ``depth`` tokens with the first, and no other does."""
    return [
        [(f"{name} {pair}", depth), (f"{name} {pair} {which}", 320 + 64 * (7 * pair % 29))]
        for pair in range(count)
        for which in ("first", "second")
    ]


def saved(policy, path):
    save_lessons(policy, path)
    return path


def loaded(path):
    load_lessons(policy := learned(), path)
    return policy.lessons


@pytest.fixture
def two(tmp_path):
    """The files of two replicas, with the traffic of each."""
    traffic = [list(of_replica("first", seed=1)), list(of_replica("second", seed=2, groups=3))]
    paths = [
        saved(serve_all(same_places(), prompts, capacity=PLENTY).policy, tmp_path / f"replica {at}")
        for at, prompts in enumerate(traffic)
    ]
    return paths, traffic


def test_what_is_counted_is_what_one_policy_counts_that_was_told_of_both(two, tmp_path):
    (first, second), traffic = two
    merge_lessons([first, second], tmp_path / "merged")
    # The first one's replica is gone with its prompts, and another serves what the second one served.
    load_lessons(told_of_both := same_places(), first)
    serve_all(told_of_both, traffic[1], capacity=PLENTY)
    merged, both = loaded(tmp_path / "merged").export(), told_of_both.lessons.export()
    for table in ("prompts", "junctions", "returns"):
        assert merged[table] == both[table], table
    assert merged["overlap"]["num_shared"] == both["overlap"]["num_shared"] > 40
    assert sum(merged["prompts"]["uses"]) > 40
    assert merged["layouts"] == [[GRID, STATE_BYTES]]


def distance(one, other, num_tokens=9_000):
    """Return the total variation distance of two predictions of where a prompt parts, by grid step."""
    masses = np.zeros((2, num_tokens // GRID + 1))
    for mass, lessons in zip(masses, (one, other), strict=True):
        expected = lessons.overlap.predict(num_tokens)
        np.add.at(mass, expected.depths // GRID, expected.weights)
    return 0.5 * np.abs(masses[0] - masses[1]).sum()


def named(name, prompts):
    return [[(f"{name} {segment}", length) for segment, length in prompt] for prompt in prompts]


@pytest.mark.parametrize(
    ("prompts", "closest", "alone_at_best"),
    [
        # Questions about documents at the one, conversations at the other.
        ((document_questions(seed=1), conversations(rounds=4, seed=2)), 0.08, 0.15),
        # The same kind at both: each knows nearly all, and together a little more.
        ((document_questions(seed=1), document_questions(seed=2)), 0.02, 0.04),
    ],
    ids=["two kinds", "one kind"],
)
def test_where_prompts_part_is_predicted_as_by_one_policy_told_of_both_in_turn(
    tmp_path, prompts, closest, alone_at_best
):
    traffic = [named(name, each) for name, each in zip("ab", prompts, strict=True)]
    alone = [serve_all("learned", each, capacity=PLENTY).policy for each in traffic]
    paths = [saved(policy, tmp_path / f"{at}") for at, policy in enumerate(alone)]
    merge_lessons(paths, tmp_path / "merged")
    in_turn = [prompt for pair in zip(*traffic, strict=False) for prompt in pair]
    both = serve_all("learned", in_turn, capacity=PLENTY).policy.lessons
    merged = loaded(tmp_path / "merged")
    assert distance(merged, both) < closest
    assert min(distance(policy.lessons, both) for policy in alone) > alone_at_best
    assert merged.overlap.sharing_rate == pytest.approx(both.overlap.sharing_rate, abs=0.05)


def test_merged_lessons_remember_no_more_than_one_policy_does(tmp_path):
    policies = [
        serve_all("learned", templates(name, count=300, depth=2048), capacity=PLENTY).policy
        for name in ("one", "two", "three")
    ]
    paths = [saved(policy, tmp_path / f"{at}") for at, policy in enumerate(policies)]
    merge_lessons(paths, tmp_path / "merged")
    everything = [policy.lessons.overlap.export() for policy in policies]
    everything.append(loaded(tmp_path / "merged").overlap.export())
    *alone, merged = (sum(sum(weights) for _, (_, weights) in each["components"]) for each in everything)
    # One of a hundred sharings fades with each, so no model holds more.
    assert max(alone) < merged <= 100.0


def test_one_file_comes_back_as_it_was(two, tmp_path):
    merge_lessons(two[0][:1], tmp_path / "merged")
    before, after = loaded(two[0][0]).export(), loaded(tmp_path / "merged").export()
    assert after.keys() == before.keys()
    for name in ("prompts", "junctions", "returns", "layouts"):
        assert after[name] == before[name]
    for one, other in zip(before["overlap"]["components"], after["overlap"]["components"], strict=True):
        assert other[0] == pytest.approx(one[0])
        assert other[1][0] == one[1][0]
        assert other[1][1] == pytest.approx(one[1][1])
    assert after["overlap"]["sums"] == pytest.approx(before["overlap"]["sums"])


def test_the_order_of_the_files_decides_nothing(two, tmp_path):
    for name, paths in (("there", two[0]), ("back", two[0][::-1])):
        merge_lessons(paths, tmp_path / name)
    there, back = loaded(tmp_path / "there"), loaded(tmp_path / "back")
    assert distance(there, back) == pytest.approx(0.0, abs=1e-12)
    assert there.export()["prompts"] == back.export()["prompts"]
    assert there.price == back.price


def test_a_new_replica_starts_with_what_both_know(tmp_path):
    kinds = (templates("shallow", count=40, depth=2048), templates("deep", count=40, depth=6144))
    paths = [
        saved(serve_all("learned", prompts, capacity=30_000).policy, tmp_path / f"{at}")
        for at, prompts in enumerate(kinds)
    ]
    merge_lessons(paths, tmp_path / "merged")
    pairs = zip(templates("c", count=6, depth=2048), templates("d", count=6, depth=6144), strict=True)
    new = [prompt for pair in pairs for prompt in pair]
    reused = {}
    for name, path in (("cold", None), ("one", paths[0]), ("other", paths[1]), ("both", tmp_path / "merged")):
        policy = learned()
        if path is not None:
            load_lessons(policy, path)
        server = serve_all(policy, new, capacity=30_000)
        reused[name] = sum(served.report.reused for served in server.served)
    assert reused["both"] >= max(reused.values()), reused
    assert reused["both"] > 1.05 * reused["cold"], reused


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"grid": 128}, "a grid of 128 tokens"),
        ({"checkpoint_bytes": 3000}, "checkpoints of 3,000 bytes"),
    ],
)
def test_another_layout_is_refused_with_both_by_name(two, tmp_path, other, reason):
    options = {"grid": GRID, "checkpoint_bytes": STATE_BYTES} | other
    footprint = Footprint(checkpoint_bytes=options["checkpoint_bytes"], kv_bytes_per_token=1)
    cache = PrefixCache(capacity_bytes=PLENTY, footprint=footprint, policy="learned", grid=options["grid"])
    strange = saved(cache.policy, tmp_path / "strange")
    with pytest.raises(ConfigurationError, match=reason) as raised:
        merge_lessons([two[0][0], strange], tmp_path / "merged")
    assert str(strange) in str(raised.value)
    assert f"a grid of {GRID} tokens and checkpoints of {STATE_BYTES:,} bytes" in str(raised.value)
    assert not (tmp_path / "merged").exists()


def test_lessons_of_a_cache_that_was_laid_out_anew_are_refused(two, tmp_path):
    load_lessons(moved := learned(), two[0][0])
    footprint = Footprint(checkpoint_bytes=STATE_BYTES, kv_bytes_per_token=1)
    PrefixCache(capacity_bytes=PLENTY, footprint=footprint, policy=moved, grid=128)
    path = saved(moved, tmp_path / "moved")
    with pytest.raises(ConfigurationError, match=r"64 tokens.* and with a grid of 128"):
        merge_lessons([path], tmp_path / "merged")


def in_the_format_of_before(path):
    """Rewrite a file as versions did that told no layout."""
    import xxhash

    whole = json.loads(path.read_bytes())
    lessons = json.loads(whole["lessons"])
    del lessons["layouts"]
    content = json.dumps(lessons)
    checksum = xxhash.xxh3_128_hexdigest(content.encode())
    path.write_text(json.dumps({"format": "milepost lessons 2", "checksum": checksum, "lessons": content}))


def test_an_older_file_is_a_warm_start_still_but_cannot_be_merged(two, tmp_path):
    (path, other), _ = two
    num_shared = loaded(path).overlap.num_shared
    in_the_format_of_before(path)
    assert loaded(path).overlap.num_shared == num_shared
    with pytest.raises(ConfigurationError, match="older version"):
        merge_lessons([other, path], tmp_path / "merged")


def test_no_file_counts_twice(two, tmp_path):
    first, second = two[0]
    before = first.read_bytes()
    with pytest.raises(ConfigurationError, match="twice"):
        merge_lessons([first, second, first.parent / "." / first.name], tmp_path / "merged")
    with pytest.raises(ConfigurationError, match="among the files"):
        merge_lessons([first, second], first)
    assert first.read_bytes() == before
    with pytest.raises(ConfigurationError, match="nothing to merge"):
        merge_lessons([], tmp_path / "merged")


def test_nothing_but_lessons_is_overwritten(two, tmp_path):
    notes = tmp_path / "notes"
    notes.write_text("of another kind")
    with pytest.raises(ConfigurationError, match="does not hold what a policy has learned"):
        merge_lessons(two[0], notes)
    assert notes.read_text() == "of another kind"
    for _ in range(2):
        merge_lessons(two[0], tmp_path / "merged")


def test_the_summary_says_what_was_learned(two, tmp_path):
    policy = merge_lessons(two[0], tmp_path / "merged")
    summary = LessonsSummary.of(policy)
    parts = [LessonsSummary.of(serve_all(same_places(), each, capacity=PLENTY).policy) for each in two[1]]
    assert summary.num_requests == sum(part.num_requests for part in parts) == sum(map(len, two[1]))
    assert summary.num_overlaps == sum(part.num_overlaps for part in parts)
    assert summary.from_end_share > summary.from_start_share
    assert summary.returns_per_prompt > 0
    with pytest.raises(ConfigurationError, match="learns nothing"):
        LessonsSummary.of(Server("dense:2048", PLENTY).policy)


def test_counts_that_fade_are_what_one_count_is_after_all_steps():
    one, other, both = (DecayedHistogram(decay=0.9, max_support=4) for _ in range(3))
    for histogram, values in ((one, [16, 32]), (other, [32, 48, 64, 80]), (both, [16, 32, 32, 48, 64, 80])):
        for value in values:
            histogram.fade()
            histogram.add(value, 1.0)
    merged = one.merge([one.export(), other.export()], scale=1.0)
    assert len(merged[0]) <= 4
    assert sum(merged[1]) == pytest.approx(sum(one.weights) + sum(other.weights))


def test_models_that_saw_nothing_merge_to_one_that_saw_nothing():
    for model in (OverlapModel(), BoundaryModel(), ReturnRates(3)):
        assert model.merge([model.export(), model.export()]) == model.export()


def test_boundaries_are_merged_as_far_as_one_model_remembers():
    models = [BoundaryModel() for _ in range(2)]
    for model, depth in zip(models, (110, 210), strict=True):
        for _ in range(400):
            model.observe((100, 200), depth, expected=0.01)
    merged = BoundaryModel()
    merged.restore(models[0].merge([model.export() for model in models]))
    assert merged.export()["seen"] == pytest.approx(models[0].export()["seen"], rel=0.02)
    last, last_but_one = merged.shares[:2]
    assert last == pytest.approx(last_but_one, rel=0.05)
    assert sum(merged.shares) <= 1.0 + 1e-9


def test_returns_are_halved_until_they_are_as_few_as_one_table_remembers():
    table = ReturnRates(1)
    for _ in range(900):
        table.note_prompt(0)
        table.note_return(0)
    merged = ReturnRates(1)
    merged.restore(table.merge([table.export()] * 3))
    assert max(merged.export()["prompts"]) <= 1024
    assert merged.expected(0, proven=True) == pytest.approx(table.expected(0, proven=True), abs=0.01)


def test_prompts_of_this_file_share_what_they_say():
    first, second = templates("x", count=1, depth=128)
    keys = [np.concatenate([segment_keys(name, length) for name, length in each]) for each in (first, second)]
    assert (keys[0][:8] == keys[1][:8]).all()
    assert keys[0][8] != keys[1][8]
