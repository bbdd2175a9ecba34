"""A restart finds its prefixes again, and says of the rest that it went with the process before."""

from dataclasses import replace

import pytest
from benchmarks.tier_chain import FOOTPRINT, STATELESS, FailingShelf, new_chain, prompt, serve

BRANCHES = [[*prompt(1, 20), *prompt(number, 20)] for number in (2, 3, 4)]


def filled_shelf(policy="dense:8", **options):
    shelf = FailingShelf()
    chain = new_chain([shelf], policy=policy, **options)
    for each in BRANCHES:
        serve(chain, each)
    return shelf


@pytest.mark.parametrize("footprint", [FOOTPRINT, STATELESS], ids=["states", "KV alone"])
def test_a_new_process_resumes_where_the_one_before_would_have(footprint):
    shelf = filled_shelf(footprint=footprint)
    lying = {entry.key for entry in shelf.entries()}
    chain = new_chain([shelf], policy="dense:8", footprint=footprint)
    assert chain.restore() > 0
    assert shelf.num_fetches == 0, "no payload is read"
    assert {entry.key for entry in shelf.entries()} == lying
    chain.check()
    for each in BRANCHES:
        report = serve(chain, each)
        assert (report.reused, report.unseen, report.reset) == (32, 0, 0)


def test_without_the_shelf_the_same_requests_are_computed():
    chain = new_chain([FailingShelf()], policy="dense:8")
    assert chain.restore() == 0
    assert serve(chain, BRANCHES[0]).reused == 0


def test_what_cannot_be_read_any_more_was_lost_to_the_restart():
    shelf = filled_shelf()
    chain = new_chain([shelf], policy="dense:8")
    chain.restore()
    shelf.damaged = {entry.key for entry in shelf.entries()}
    report = serve(chain, BRANCHES[0])
    assert (report.reused, report.unseen, report.reset, report.eviction) == (0, 0, 32, 0)


def test_what_was_used_last_is_what_stays_in_a_smaller_budget():
    shelf = filled_shelf("tail")
    chain = new_chain([shelf], policy="tail")
    chain.restore()
    serve(chain, BRANCHES[0])
    smaller = new_chain([shelf], policy="tail", below=300)
    smaller.restore()
    smaller.check()
    assert shelf.stored_bytes <= 300
    assert serve(smaller, BRANCHES[0]).reused == 36
    assert serve(smaller, BRANCHES[1]).reused == 0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda entry: replace(entry, parent="kffffffffffffffff"),
        lambda entry: replace(entry, namespace="somebody else"),
        lambda entry: replace(entry, num_bytes=entry.num_bytes + 500),
        lambda entry: replace(entry, parent=None),
        lambda entry: replace(entry, parent=entry.key),
    ],
    ids=["an unknown parent", "another tenant", "another size", "no parent", "its own parent"],
)
def test_an_entry_that_fits_nothing_is_removed_with_what_hangs_on_it_alone(spoil):
    shelf = filled_shelf()
    first = next(entry for entry in shelf.entries() if entry.kind == "state" and entry.end == 32)
    spoiled = spoil(first)
    shelf.put(spoiled, shelf.fetch([first.key])[0])
    chain = new_chain([shelf], policy="dense:8")
    chain.restore()
    chain.check()
    assert first.key not in {entry.key for entry in shelf.entries()}
    reused = [serve(chain, each).reused for each in BRANCHES]
    assert sorted(reused) == [24, 32, 32]


def test_states_whose_kv_is_gone_are_removed():
    shelf = filled_shelf()
    shelf.remove([entry.key for entry in shelf.entries() if entry.kind == "kv" and entry.end == 16])
    chain = new_chain([shelf], policy="dense:8")
    chain.restore()
    chain.check()
    assert {entry.end for entry in shelf.entries()} == {8}
    assert [serve(chain, each).reused for each in BRANCHES] == [8, 16, 16]


def test_a_process_that_ended_between_two_writes_leaves_nothing_that_lies_there_for_ever():
    shelf = filled_shelf()
    shelf.remove([entry.key for entry in shelf.entries() if entry.kind == "state"])
    assert list(shelf.entries())
    chain = new_chain([shelf], policy="dense:8")
    assert chain.restore() == 0
    assert not list(shelf.entries())


def test_tiers_in_between_know_the_prompts_of_the_slowest():
    shelves = [FailingShelf(), FailingShelf()]
    chain = new_chain(shelves, policy="tail")
    serve(chain, BRANCHES[0])
    chain = new_chain([FailingShelf(), shelves[1]], policy="tail")
    assert chain.restore() == 1
    with chain.acquire(BRANCHES[0]) as lease:
        assert chain.reused_by_tier(lease) == {"memory": 0, "tier 2": 36}
    chain.check()
