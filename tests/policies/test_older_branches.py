"""Requests that follow a prompt of which nothing is held count where that prompt left the latest one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from traffic import segment_keys, serve_trace

from milepost.policies import reuse_model
from milepost.policies.generations import is_overlap
from milepost.policies.older_branches import older_branch_point
from milepost.store import Checkpoint, SeenPrompt
from milepost.store.tree import RadixTree

BLOCK = 16
# Longer than the template that every prompt begins with.
SEGMENT = 128


def keys_of(prompt):
    return np.concatenate([segment_keys(name, SEGMENT) for name in prompt])


class Tree:
    """A history of prompts, each a string of segments."""

    def __init__(self, *prompts):
        self.tree = RadixTree(segment_tokens=SEGMENT, key_tokens=BLOCK)
        for prompt in prompts:
            self.insert(prompt)

    def insert(self, prompt):
        return self.tree.insert(keys_of(prompt), tenant="", prompt=SeenPrompt(len(prompt) * SEGMENT))

    def hold(self, prompt, num_segments, *, is_kv_only=False):
        path, position = self.tree.match(keys_of(prompt), tenant="").path, num_segments * SEGMENT
        node = next(each for each in path if each.end >= position)
        held = Checkpoint(node=node, position=position, payload=None, num_bytes=0, serial=position, tick=0)
        held.is_kv_only = is_kv_only
        node.checkpoints.append(held)

    def branch_position(self, prompt):
        point = older_branch_point(self.insert(prompt))
        return None if point is None else point.position // SEGMENT


@pytest.mark.parametrize(
    ("history", "prompt", "position"),
    [
        # An older branch, after a newer one has left it.
        (["sab", "scd"], "sabe", 1),
        # What diverges on it, too.
        (["sab", "scd"], "sax", 1),
        # The latest branch all the way.
        (["sab", "scd"], "scde", None),
        # A new branch: it counts as a use of the branch point without this.
        (["sab", "scd"], "sef", None),
        # What others have followed since it left is no older branch any more.
        (["sab", "scd", "sabe"], "sabef", None),
        # Of several, the deepest.
        (["sabcd", "sabef", "sxyz"], "sabcdg", 3),
        # A later prompt that ended there has left the path too.
        (["sab", "sac", "sa"], "sabx", 2),
        # Nothing is shared.
        (["sab", "scd"], "xyz", None),
    ],
)
def test_it_is_where_an_older_branch_left_the_latest(history, prompt, position):
    assert Tree(*history).branch_position(prompt) == position


@pytest.mark.parametrize(("num_segments", "position"), [(1, 1), (2, None), (3, None), (4, 1)])
def test_a_state_that_is_held_of_its_branch_is_resumed_from_instead(num_segments, position):
    """The first is at the place itself; the last lies behind what the request shares."""
    history = Tree("sabe", "scd")
    history.hold("sabe", num_segments)
    assert history.branch_position("sabx") == position


@pytest.mark.parametrize("prompt", ["sab", "sa"])
def test_a_state_at_the_end_of_the_prompt_cannot_be_resumed_from(prompt):
    history = Tree("sab", "scd")
    history.hold("sab", len(prompt))
    assert history.branch_position(prompt) == 1
    assert history.branch_position(f"{prompt}x") is None


def test_kv_alone_is_nothing_to_resume_from():
    history = Tree("sabe", "scd")
    history.hold("sabe", 2, is_kv_only=True)
    assert history.branch_position("sabx") == 1


def test_the_template_that_every_prompt_begins_with_is_no_such_point():
    assert not is_overlap(BLOCK)
    tree = RadixTree(segment_tokens=SEGMENT, key_tokens=BLOCK)
    template = segment_keys("template", BLOCK)
    prompts = [np.concatenate([template, keys_of(name)]) for name in ("ab", "cd", "abe")]
    inserted = [tree.insert(keys, tenant="", prompt=SeenPrompt(keys.size * BLOCK)) for keys in prompts]
    assert inserted[-1].passed.keys() == {inserted[0].prompt, inserted[1].prompt}
    assert older_branch_point(inserted[-1]) is None


def naive_position(history, prompt):
    """Return the position by its definition: the deepest where the request goes on from the latest prompt
    there as an older one does. Every prompt ends as no other does, so none ends where another goes on.
    """
    shared = [_shared(earlier, prompt) for earlier in history]
    overlap = max(shared, default=0)
    places = [
        depth
        for depth in range(1, overlap)
        if max(at for at, each in enumerate(shared) if each >= depth)
        != max(at for at, each in enumerate(shared) if each > depth)
    ]
    return max(places, default=None)


def _shared(one, other):
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)


@given(st.lists(st.text("ab", min_size=1, max_size=5), min_size=2, max_size=9))
@settings(max_examples=200)
def test_it_is_what_its_definition_says(beginnings):
    prompts = [f"s{beginning}{chr(0x100 + number)}" for number, beginning in enumerate(beginnings)]
    history = Tree()
    for number, prompt in enumerate(prompts):
        assert history.branch_position(prompt) == naive_position(prompts[:number], prompt)


def test_what_requests_on_older_branches_resume_from_is_kept(monkeypatch):
    """Of agents that share long lists of tools, where memory holds a few of their sessions."""
    agents = "synthetic:agents,requests=400,seed=1"
    kept = serve_trace("learned", agents, capacity=50_000).reused_fraction
    monkeypatch.setattr(reuse_model, "older_branch_point", lambda _: None)
    assert kept > 1.1 * serve_trace("learned", agents, capacity=50_000).reused_fraction
