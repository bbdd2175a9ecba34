"""The radix tree against a plain list of the prompts that were inserted."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.store import InsertResult, PrefixStore, Recency, SeenPrompt, check_store
from milepost.store.tree import RadixTree

prompts = st.lists(st.integers(0, 1), min_size=1, max_size=12).map(tuple)
# Far beyond the depth that recursion reaches.
CHAIN = 5_000


def array(tokens) -> np.ndarray:
    return np.asarray(tokens, dtype=np.int32)


def insert(tree: RadixTree, tokens, *, tenant: str = "", **known) -> InsertResult:
    return tree.insert(array(tokens), tenant=tenant, prompt=SeenPrompt(len(tokens)), **known)


def tokens_of(node) -> np.ndarray:
    return node.keys(np.dtype(np.int32))


def shared(left, right) -> int:
    pairs = enumerate(zip(left, right, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(left), len(right)))


def held_prompts(tree: RadixTree, tenant: str) -> set[tuple[int, ...]]:
    """Every path from the root to a leaf."""
    found = set()
    pending = [((), tree._roots[tenant])] if tenant in tree._roots else []
    while pending:
        before, node = pending.pop()
        tokens = (*before, *tokens_of(node).tolist())
        assert len(tokens) == node.end
        pending += [(tokens, child) for child in node.children.values()]
        if not node.children:
            found.add(tokens)
    return found


def check_structure(tree: RadixTree) -> None:
    assert tree.num_keys == tree.num_tokens == sum(tokens_of(node).size for node in tree.nodes())
    for node in tree.nodes():
        assert tokens_of(node).size == node.end - node.start > 0
        assert node.parent.end == node.start
        for first, child in node.children.items():
            assert child.parent is node
            assert tokens_of(child)[:1].tobytes() == first
    assert all(root.children for root in tree._roots.values())


@given(st.lists(st.tuples(prompts, st.sampled_from(["a", "b"])), max_size=12), prompts)
def test_matching_finds_what_comparing_with_every_prompt_finds(inserted, asked):
    tree = RadixTree(segment_tokens=4)
    naive = {"a": [], "b": []}
    for tokens, tenant in inserted:
        path = insert(tree, tokens, tenant=tenant).path
        naive[tenant].append(tokens)
        assert path[0].start == 0
        assert path[-1].end == len(tokens)
        assert all(above.end == below.start and below.parent is above for above, below in pairwise(path))
        check_structure(tree)
    for tenant, seen in naive.items():
        assert tree.match(array(asked), tenant=tenant).depth == max(
            (shared(asked, t) for t in seen), default=0
        )
        assert held_prompts(tree, tenant) == {
            t for t in seen if not any(shared(t, other) == len(t) < len(other) for other in seen)
        }


@given(st.lists(prompts, min_size=1, max_size=10), prompts)
def test_matching_changes_nothing(inserted, asked):
    tree = RadixTree(segment_tokens=4)
    for tokens in inserted:
        insert(tree, tokens)
    before = [(n.start, n.end, n.data) for n in tree.nodes()]
    tree.match(array(asked), tenant="")
    tree.match(array(asked), tenant="never seen")
    assert [(n.start, n.end, n.data) for n in tree.nodes()] == before
    assert set(tree._roots) == {""}


@given(st.lists(prompts, min_size=1, max_size=12), st.integers(0, 40))
def test_forgetting_drops_whole_branches_until_few_enough_tokens_are_left(inserted, keep):
    tree = RadixTree(segment_tokens=4)
    for tokens in inserted:
        insert(tree, tokens)
    before = held_prompts(tree, "")
    tree.forget(until_num_keys=keep)
    check_structure(tree)
    assert tree.num_tokens <= keep
    for left in held_prompts(tree, ""):
        assert any(shared(left, prompt) == len(left) for prompt in before)
    for node in tree.nodes():
        ends = {len(prompt) for prompt in inserted}
        assert len(node.children) != 1 or node.end in ends, "a split that no branch needs is undone"


def test_the_branch_untouched_longest_is_forgotten_first():
    tree = RadixTree(segment_tokens=4)
    for first in (1, 2, 3):
        insert(tree, [first] * 10)
    insert(tree, [1] * 10)
    tree.forget(until_num_keys=20)
    assert held_prompts(tree, "") == {(1,) * 10, (3,) * 10}


def test_a_tenant_whose_prompts_are_all_forgotten_leaves_no_root_behind():
    tree = RadixTree(segment_tokens=4)
    insert(tree, [1, 2], tenant="a")
    tree.forget(until_num_keys=0)
    assert tree._roots == {}


def test_a_conversation_of_many_turns_stays_one_edge_until_somebody_parts_from_it():
    tree = RadixTree(segment_tokens=4)
    for length in (5, 9, 14):
        passage = insert(tree, range(length))
        assert [(n.start, n.end, n.owner) for n in tree.nodes()] == [(0, length, passage.prompt)]
        assert not passage.is_diverging
    assert insert(tree, [*range(9), 99]).is_diverging
    assert sorted((n.start, n.end) for n in tree.nodes()) == [(0, 9), (9, 10), (9, 14)]


def test_a_prompt_takes_over_from_each_before_it_as_far_as_they_agree():
    tree = RadixTree(segment_tokens=4)
    long = insert(tree, range(20))
    other = insert(tree, [*range(8), 88, 88])
    assert other.passed == {long.prompt: 8}
    assert (other.earlier, other.overlap_depth, other.is_diverging) == (long.prompt, 8, True)
    again = insert(tree, [*range(12), 99])
    assert again.passed == {other.prompt: 8, long.prompt: 12}
    assert again.earlier is long.prompt, "of those that share all twelve, not the latest of all"
    third = insert(tree, [*range(12), 77])
    assert (third.branch_point.position, third.is_diverging) == (12, True)
    assert third.passed == {again.prompt: 12}


@given(st.lists(prompts, min_size=2, max_size=8))
def test_a_match_that_is_out_of_date_is_made_anew(inserted):
    in_turn, tree = RadixTree(segment_tokens=4), RadixTree(segment_tokens=4)
    matches = [tree.match(array(tokens), tenant="") for tokens in inserted]
    for tokens, match in zip(inserted, matches, strict=True):
        stale = insert(tree, tokens, match=match)
        fresh = insert(in_turn, tokens)
        assert stale.overlap_depth == fresh.overlap_depth
        assert [(n.start, n.end) for n in stale.path] == [(n.start, n.end) for n in fresh.path]
        check_structure(tree)
    assert held_prompts(tree, "") == held_prompts(in_turn, "")


def test_a_prompt_shorter_than_one_key_leaves_nothing_behind():
    tree = RadixTree(segment_tokens=4, key_tokens=16)
    for _ in range(2):
        inserted = tree.insert(np.empty(0, tree.key_dtype), tenant="", prompt=SeenPrompt(5))
        assert (inserted.path, inserted.overlap_depth, inserted.earlier) == ([], 0, None)
        assert not inserted.is_diverging
    assert list(tree.nodes()) == []
    assert tree.tenants() == []


def test_an_edge_does_not_alias_the_callers_buffer():
    tree = RadixTree(segment_tokens=4)
    buffer = array([1, 2, 3])
    insert(tree, buffer)
    buffer[:] = 9
    assert tree.match(array([1, 2, 3]), tenant="").depth == 3


def test_a_split_and_its_merge_leave_the_edge_as_it_was():
    tree = RadixTree(segment_tokens=4)
    insert(tree, range(10))
    insert(tree, [0, 1, 2, 9])
    assert sorted((n.start, n.end) for n in tree.nodes()) == [(0, 3), (3, 4), (3, 10)]
    for node in tree.nodes():
        node.evicted = (node.end - 1, node.end) if node.children else (node.end,)
        assert (node.branch_point is not None) == bool(node.children)
    latest = insert(tree, range(10)).prompt  # touches the long branch
    (forgotten,) = tree.forget(until_num_keys=10)
    assert (forgotten.start, forgotten.end) == (3, 4)
    (node,) = tree.nodes()
    assert node.evicted == (2, 3, 10)
    assert node.owner is latest
    assert node.branch_point is None, "nobody diverges there any more"
    assert tokens_of(node).tolist() == list(range(10))
    assert node.is_queued


def test_between_long_edges_the_seam_of_a_branch_that_is_forgotten_stays():
    tree = RadixTree(segment_tokens=4)
    insert(tree, range(5000))
    insert(tree, [*range(3000), 9])
    insert(tree, range(5000))
    tree.forget(until_num_keys=5000)
    assert sorted((n.start, n.end) for n in tree.nodes()) == [(0, 3000), (3000, 5000)]
    assert held_prompts(tree, "") == {tuple(range(5000))}
    check_structure(tree)
    assert not insert(tree, range(6000)).is_diverging, "and whoever goes on along it parts from nobody"


def test_where_a_policy_watches_a_branch_point_the_seam_stays_until_it_looks_away():
    tree = RadixTree(segment_tokens=4)
    insert(tree, range(10))
    point = insert(tree, [0, 1, 2, 9]).branch_point
    point.hazard_class = 0
    insert(tree, range(10))
    tree.forget(until_num_keys=10)
    assert sorted((n.start, n.end) for n in tree.nodes()) == [(0, 3), (3, 10)]
    assert insert(tree, [0, 1, 2, 8]).branch_point is point
    point.hazard_class = -1
    insert(tree, range(10))
    tree.forget(until_num_keys=10)
    assert [(n.start, n.end) for n in tree.nodes()] == [(0, 10)]


@pytest.mark.parametrize(("above", "below", "together"), [(2, 1, 3), (1, 0, 1)])
def test_a_merge_keeps_how_far_kv_has_ever_reached(above, below, together):
    tree = RadixTree(segment_tokens=4)
    insert(tree, range(20))
    insert(tree, [*range(8), 99])
    insert(tree, range(20))
    upper, lower = (next(n for n in tree.nodes() if (n.start, n.end) == span) for span in ((0, 8), (8, 20)))
    upper.num_kv_reached, lower.num_kv_reached = above, below
    tree.forget(until_num_keys=20)
    (node,) = tree.nodes()
    assert node.num_kv_reached == together


class Weightless:
    num_bytes = 1


class Source:
    def checkpoint(self, position):
        return Weightless()

    def kv_segments(self, start, end):
        return [None] * ((end - start) // 1000)


@pytest.fixture(scope="module")
def deep_store() -> PrefixStore:
    """Prompts that part one by one: a chain of thousands of nodes with a leaf at each."""
    store = PrefixStore(
        capacity_bytes=1 << 40,
        segment_tokens=1000,
        kv_bytes_per_token=1,
        is_stateless=False,
        eviction=Recency(),
        history_tokens=1 << 40,
    )
    # Built directly: inserting each prompt in full would take as many token comparisons as there are pairs.
    chain = array(np.zeros(CHAIN))
    path = store.remember(chain, tenant="", prompt=SeenPrompt(CHAIN)).path
    node = path[0]
    tree = store.tree
    for depth in range(CHAIN - 1, 0, -1):
        leaf = array(np.append(chain[:depth], 1))
        tree._add_leaf(tree._split(node, depth), leaf, depth, SeenPrompt(depth + 1))
        node = node.parent
    return store


def test_no_walk_recurses_over_the_depth(deep_store):
    chain = array(np.zeros(CHAIN))
    path = deep_store.remember(chain, tenant="", prompt=SeenPrompt(CHAIN)).path
    assert len(path) == CHAIN
    assert deep_store.look_up(chain, num_tokens=CHAIN, tenant="", limit=CHAIN).overlap_depth == CHAIN
    deepest = deep_store.put(path, CHAIN, source=Source(), tick=1)
    deep_store.pin(deepest)
    assert deep_store.put(path, CHAIN // 2, source=Source(), tick=2) is not None
    check_store(deep_store)
    assert deep_store.kv.num_segments == CHAIN // 1000
    located = deep_store.look_up(chain, num_tokens=CHAIN, tenant="", limit=CHAIN - 1)
    assert located.resume_position == CHAIN // 2
    assert len(deep_store.kv_segments(located)) == CHAIN // 2000
    deep_store.unpin(deepest)
    deep_store.evictor.evict(deepest)
    check_store(deep_store)
    assert deep_store.kv.num_segments == CHAIN // 2000
    deep_store.evictor.evict(located.checkpoint)
    num_tokens = deep_store.tree.num_tokens
    deep_store.tree.forget(until_num_keys=num_tokens - 2000)
    check_store(deep_store)
    assert deep_store.tree.num_tokens == num_tokens - 2000
