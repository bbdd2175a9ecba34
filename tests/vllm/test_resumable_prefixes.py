"""What is told of prefixes is what a look at all of them finds, whatever came and went in which order."""

from hypothesis import given, settings
from hypothesis import strategies as st

from milepost.vllm.resumable_prefixes import ResumablePrefixes

KV_GROUPS, STATE_GROUPS = (3, 4), (0, 1)
# A tree of prefixes: two ways on from each, four deep.
PARENTS = {"a": None, "b": None} | {
    path + step: path for path in ("a", "b", "aa", "ab", "aaa", "aab", "ba") for step in "ab"
}


def found_by_looking(kv, states):
    """Return the prefixes that lie at or before one that can be resumed from."""

    def is_live(prefix):
        return prefix is None or (all(kv.get((prefix, g)) for g in KV_GROUPS) and is_live(PARENTS[prefix]))

    useful = set()
    for prefix in PARENTS:
        if is_live(prefix) and all(states.get((prefix, group)) for group in STATE_GROUPS):
            at = prefix
            while at is not None:
                useful.add(at)
                at = PARENTS[at]
    return useful


operations = st.lists(
    st.tuples(
        st.sampled_from(["store", "store", "remove"]),
        st.sampled_from(sorted(PARENTS)),
        st.sampled_from([*KV_GROUPS, *STATE_GROUPS]),
    ),
    max_size=200,
)


@settings(deadline=None)
@given(operations)
def test_changes_add_up_to_what_a_look_finds(steps):
    prefixes = ResumablePrefixes(kv_groups=KV_GROUPS, state_groups=STATE_GROUPS)
    kv, states, told = {}, {}, set()
    for verb, prefix, group in steps:
        copies = kv if group in KV_GROUPS else states
        if verb == "store":
            copies[prefix, group] = copies.get((prefix, group), 0) + 1
            if group in KV_GROUPS:
                prefixes.store_kv(prefix, group, parent=PARENTS[prefix])
            else:
                prefixes.store_state(prefix, group)
        else:
            copies[prefix, group] = max(0, copies.get((prefix, group), 0) - 1)
            (prefixes.remove_kv if group in KV_GROUPS else prefixes.remove_state)(prefix, group)
        useless, useful = prefixes.take_changes()
        for each in useless:
            told.remove(each)
            # What is behind it went before it.
            assert not {other for other in told if PARENTS[other] == each}
        for each in useful:
            assert each not in told
            assert PARENTS[each] is None or PARENTS[each] in told
            told.add(each)
        assert told == found_by_looking(kv, states)
        assert bool(len(prefixes)) is any([*kv.values(), *states.values()])


def resumable(*path):
    prefixes = ResumablePrefixes(kv_groups=KV_GROUPS, state_groups=STATE_GROUPS)
    for prefix in path:
        for group in KV_GROUPS:
            prefixes.store_kv(prefix, group, parent=PARENTS[prefix])
    for group in STATE_GROUPS:
        prefixes.store_state(path[-1], group)
    return prefixes


def test_blocks_are_of_use_up_to_the_last_state():
    prefixes = resumable("a", "aa", "aaa")
    for group in KV_GROUPS:
        prefixes.store_kv("aaab", group, parent="aaa")
    assert prefixes.take_changes() == ([], ["a", "aa", "aaa"])
    prefixes.remove_state("aaa", 0)
    assert prefixes.take_changes() == (["aaa", "aa", "a"], [])


def test_of_two_copies_one_is_enough():
    prefixes = resumable("a", "aa")
    prefixes.store_kv("aa", 3, parent="a")
    prefixes.take_changes()
    assert not prefixes.remove_kv("aa", 3)
    assert prefixes.take_changes() == ([], [])
    assert prefixes.remove_kv("aa", 3)
    assert prefixes.take_changes() == (["aa", "a"], [])


def test_what_is_unknown_can_go_without_harm():
    prefixes = resumable("a")
    assert not prefixes.remove_kv("b", 3)
    prefixes.remove_state("b", 0)
    assert prefixes.take_changes() == ([], ["a"])
    prefixes.clear()
    assert len(prefixes) == 0
    assert prefixes.take_changes() == ([], [])
