"""Ends of a tree give up their KV in the order of what they are worth, though few are ranked at a time."""

import random
from dataclasses import dataclass

import pytest

from milepost.sglang.leaf_order import LeafOrder


@dataclass(eq=False)
class End:
    id: int
    worth: float = 0.0


class Ends:
    """Ends of a tree, and an order of them that counts how often it asks."""

    def __init__(self, *worths):
        self.leaves = {End(at, worth) for at, worth in enumerate(worths)}
        self.num_ranked = 0
        self.order = LeafOrder(self._priority)

    def _priority(self, leaf):
        self.num_ranked += 1
        return (leaf.worth,)

    def pop(self):
        self.order.update(self.leaves)
        return self.order.pop(self.leaves)


def by_id(ends, leaf_id):
    return next(leaf for leaf in ends.leaves if leaf.id == leaf_id)


def test_the_least_worth_goes_first_and_each_goes_once():
    ends = Ends(3.0, 1.0, 2.0)
    ends.order.update(ends.leaves)

    assert [ends.order.pop(ends.leaves).id for _ in ends.leaves] == [1, 2, 0]
    assert ends.order.pop(ends.leaves) is None


def test_equals_go_by_their_ids():
    assert Ends(1.0, 1.0).pop().id == 0


def test_what_came_to_be_worth_more_is_noticed_before_it_goes():
    ends = Ends(1.0, 2.0, 3.0)
    ends.order.update(ends.leaves)
    by_id(ends, 0).worth = 2.5

    assert ends.pop().id == 1
    assert ends.pop().id == 1, "it is still an end of the tree, so it is ranked again"
    ends.leaves.remove(by_id(ends, 1))
    assert ends.pop().id == 0


def test_what_is_forgotten_is_ranked_anew():
    ends = Ends(1.0, 2.0, 3.0)
    ends.order.update(ends.leaves)
    worthless = by_id(ends, 2)
    worthless.worth = 0.0
    ends.order.forget(worthless)

    assert ends.pop() is worthless


def test_what_is_no_end_any_more_is_passed_over_and_comes_back_as_new():
    ends = Ends(1.0, 2.0)
    ends.order.update(ends.leaves)
    held = by_id(ends, 0)
    ends.leaves.remove(held)
    assert ends.pop().id == 1

    held.worth = 5.0
    ends.leaves.add(held)
    assert ends.pop().id == 1
    ends.leaves.remove(by_id(ends, 1))
    assert ends.pop() is held


def test_whatever_falls_is_noticed_while_there_is_time_for_it():
    ends = Ends(*map(float, range(1, 101)))
    ends.order.update(ends.leaves)
    by_id(ends, 99).worth = 0.5
    assert ends.pop().id == 0

    for _ in range(7):
        ends.order.rank_ahead(ends.leaves)
    assert ends.pop().id == 99


def test_a_walk_asks_about_few_however_many_there_are():
    ends = Ends(*(random.Random(0).random() for _ in range(5000)))
    ends.order.update(ends.leaves)
    ends.num_ranked = 0
    for _ in range(100):
        ends.leaves.remove(ends.pop())

    assert ends.num_ranked == 100


@pytest.mark.parametrize("seed", range(20))
def test_it_is_the_order_of_all_once_all_were_ranked(seed):
    drawn = random.Random(seed)
    ends = Ends()
    for step in range(300):
        what = drawn.random()
        if what < 0.5:
            ends.leaves.add(End(step, drawn.random()))
        elif ends.leaves:
            leaf = drawn.choice(sorted(ends.leaves, key=lambda leaf: leaf.id))
            if what < 0.7:
                leaf.worth = drawn.random()
            elif what < 0.8:
                ends.leaves.remove(leaf)
            else:
                for _ in range(1 + len(ends.order) // 8):
                    ends.order.rank_ahead(ends.leaves)
                least = min(ends.leaves, key=lambda leaf: (leaf.worth, leaf.id))
                assert ends.order.pop(ends.leaves) is least
                ends.leaves.remove(least)


def test_ends_that_are_gone_are_let_go():
    ends = Ends(*map(float, range(200)))
    ends.order.update(ends.leaves)
    ends.leaves = {End(1000, 1.0)}
    for _ in range(20):
        ends.order.rank_ahead(ends.leaves)

    assert len(ends.order) == 1
    assert len(ends.order._heap) <= 2 + 64
