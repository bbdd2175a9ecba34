"""What memory drops is brought back from a slower tier where that pays, and only as it was."""

import math

import pytest
from benchmarks.tier_chain import (
    STATELESS,
    FailingShelf,
    Source,
    Ticks,
    assert_made_for,
    new_chain,
    prompt,
    serve,
)

from milepost.errors import ConfigurationError, InvalidRequestError


def fill(chain, count=20, *, start=100):
    for number in range(start, start + count):
        serve(chain, prompt(number))


@pytest.mark.parametrize("policy", ["tail", "learned", "dense:16", "marconi", "sglang", "tail/learned"])
def test_what_memory_dropped_is_fetched_and_counted_to_its_tier(policy):
    chain = new_chain([FailingShelf()], policy=policy)
    serve(chain, prompt(1))
    fill(chain)
    with chain.acquire(prompt(1)) as lease:
        assert lease.resume_position >= 32
        assert chain.reused_by_tier(lease) == {"memory": 0, "tier 1": lease.resume_position}
        assert chain.tiers()[1].traffic.num_hits == 0, "it is no request yet"
        chain.commit(lease, [], None)
    memory, below = chain.tiers()
    assert below.traffic.num_hits == 1
    assert below.traffic.reused_tokens == lease.resume_position
    assert memory.traffic.num_hits == 0


def test_without_a_slower_tier_the_same_request_is_computed():
    chain = new_chain([FailingShelf()], is_lasting=lambda tenant: False)
    serve(chain, prompt(1))
    fill(chain)
    assert serve(chain, prompt(1)).eviction == 36


def test_a_chain_has_at_least_two_tiers():
    with pytest.raises(ConfigurationError, match="one tier"):
        new_chain([])


def test_what_memory_holds_is_not_read_again():
    shelf = FailingShelf()
    chain = new_chain([shelf])
    serve(chain, prompt(1))
    assert serve(chain, prompt(1)).reused == 36
    assert shelf.num_fetches == 0
    assert chain.tiers()[0].traffic.num_hits == 1


def test_kv_that_memory_still_has_is_not_read():
    shelf = FailingShelf()
    chain = new_chain([shelf], memory=300)
    serve(chain, prompt(1, 17))
    longer = [*prompt(1, 17), *prompt(2, 23)]
    serve(chain, longer)
    chain.fastest.evict(chain.fastest.acquire(longer).checkpoint)
    with chain.acquire(longer) as lease:
        assert_made_for(lease, longer)


def test_a_tier_that_is_dearer_to_read_than_computing_is_not_used():
    clock = Ticks()
    chain = new_chain([FailingShelf()], clock=clock)
    serve(chain, prompt(1))
    with chain.acquire(prompt(2)) as lease:
        # 40 tokens in a hundredth of a second, and bytes at a hundred a second.
        chain.note_computed(lease, 0.01)
    chain.slower[0].speed.note(100, 1.0)
    fill(chain)
    with chain.acquire(prompt(1)) as lease:
        assert lease.resume_position == 0
    assert chain.tiers()[1].traffic.num_declined == 1
    assert chain.slower[0].shelf.num_fetches == 0


def test_such_a_tier_takes_nothing_in_and_is_tried_again_one_day():
    chain = new_chain([FailingShelf()])
    serve(chain, prompt(1))
    with chain.acquire(prompt(2)) as lease:
        chain.note_computed(lease, 0.01)
    tier = chain.slower[0]
    tier.speed.note(100, 1.0)
    held = tier.cache.statistics().num_checkpoints
    fill(chain)
    assert tier.cache.statistics().num_checkpoints == held
    for _ in range(400):
        with chain.acquire(prompt(1)) as lease:
            if lease.resume_position:
                return
    raise AssertionError("it was never measured again")


def test_a_request_for_which_memory_has_no_room_is_a_miss_and_reads_nothing():
    shelf = FailingShelf()
    chain = new_chain([shelf], memory=300)
    serve(chain, prompt(1))
    serve(chain, prompt(2))
    serve(chain, prompt(3))
    with chain.acquire(prompt(3)), chain.acquire(prompt(2)):
        before = shelf.num_fetches
        with chain.acquire(prompt(1)) as lease:
            assert lease.resume_position == 0
        assert shelf.num_fetches == before
    chain.check()
    assert chain.tiers()[1].traffic.num_without_room == 1


@pytest.mark.parametrize("kind", ["s", "k"])
def test_what_cannot_be_read_is_a_miss_and_goes_at_once(kind):
    shelf = FailingShelf()
    chain = new_chain([shelf])
    serve(chain, prompt(1))
    fill(chain)
    kept = {entry.key for entry in shelf.entries() if entry.tokens[:4] == b"\x01\0\0\0" or entry.start == 32}
    mine = {entry.key for entry in shelf.entries() if chain_of(shelf, entry)[:1] == [1]}
    shelf.damaged = {key for key in mine if key.startswith(kind)}
    assert kept
    assert shelf.damaged
    assert serve(chain, prompt(1)).reused == 0
    assert chain.tiers()[1].traffic.num_damaged == 1
    fill(chain, start=300)
    assert serve(chain, prompt(1)).reused == 36, "it was captured and written again"


def chain_of(shelf, entry):
    """The tokens before the end of an entry, by the chain of its parents."""
    by_key = {each.key: each for each in shelf.entries()}
    line = [entry]
    while line[-1].parent is not None:
        line.append(by_key[line[-1].parent])
    return [token for each in line[::-1] for token in memoryview(each.tokens).cast("i")]


def test_a_damaged_state_falls_back_to_a_shallower_one():
    shelf = FailingShelf()
    chain = new_chain([shelf], policy="dense:16")
    serve(chain, prompt(1))
    fill(chain)
    shelf.damaged = {
        entry.key
        for entry in shelf.entries()
        if entry.kind == "state" and entry.end == 32 and chain_of(shelf, entry)[0] == 1
    }
    assert len(shelf.damaged) == 1
    assert serve(chain, prompt(1)).reused == 16


def test_damage_that_another_request_holds_pinned_is_not_read_for_ever():
    shelf = FailingShelf()
    chain = new_chain([shelf])
    serve(chain, prompt(1))
    below = chain.slower[0].cache
    with below.acquire(prompt(1)) as held:
        fill(chain)
        assert held.resume_position == 36
        shelf.damaged = {entry.key for entry in shelf.entries()}
        with chain.acquire(prompt(1)) as lease:
            assert lease.resume_position == 0
        chain.check()
    assert serve(chain, prompt(1)).reused == 0


def test_a_payload_that_its_owner_does_not_trust_goes_from_every_tier():
    chain = new_chain([FailingShelf(), FailingShelf()])
    serve(chain, prompt(1))
    chain.acquire(prompt(1)).discard()
    chain.check()
    with chain.acquire(prompt(1)) as lease:
        assert lease.resume_position == 0


def test_what_may_not_last_stays_in_memory():
    shelf = FailingShelf()
    chain = new_chain([shelf], is_lasting=lambda tenant: tenant == "kept")
    serve(chain, prompt(1), tenant="adapter")
    assert not list(shelf.entries())
    serve(chain, prompt(1), tenant="kept")
    assert {entry.namespace for entry in shelf.entries()} == {"kept"}


def test_tenants_share_nothing_in_any_tier():
    chain = new_chain([FailingShelf()])
    serve(chain, prompt(1), tenant="one")
    fill(chain)
    assert serve(chain, prompt(1), tenant="another").reused == 0
    assert serve(chain, prompt(1), tenant="one").reused == 36


def test_an_answer_goes_on_in_every_tier():
    chain = new_chain([FailingShelf()])
    answered = [*prompt(1), *prompt(2, 8)]
    with chain.acquire(prompt(1)) as lease:
        chain.commit(lease, chain.plan(lease), Source(prompt(1)))
    assert chain.extend(lease, answered, Source(answered), unasked=True) == 48
    chain.check()
    fill(chain)
    assert serve(chain, [*answered, 5, 5]).reused == 48


def test_three_tiers_fetch_from_where_it_costs_least_and_fill_those_between():
    host, disk = FailingShelf(), FailingShelf()
    chain = new_chain([host, disk], memory=400)
    serve(chain, prompt(1))
    fill(chain)
    chain.slower[0].cache.forget_everything()
    with chain.acquire(prompt(1)) as lease:
        assert chain.reused_by_tier(lease) == {"memory": 0, "tier 2": 36}
    assert {chain_of(host, entry)[0] for entry in host.entries()} == {1}, "the host has it too by now"
    chain.check()
    fill(chain, start=300)
    with chain.acquire(prompt(1)) as lease:
        assert chain.reused_by_tier(lease) == {"memory": 0, "tier 1": 36}


def test_of_two_tiers_that_have_it_the_faster_one_is_read():
    chain = new_chain([FailingShelf(), FailingShelf()])
    serve(chain, prompt(1))
    with chain.acquire(prompt(2)) as lease:
        chain.note_computed(lease, 1.0)
    chain.slower[0].speed.note(1e6, 1.0)
    chain.slower[1].speed.note(1e9, 1.0)
    fill(chain)
    with chain.acquire(prompt(1)) as lease:
        assert chain.reused_by_tier(lease) == {"memory": 0, "tier 2": 36}


def test_memory_drops_first_what_it_can_bring_back_cheaply():
    chain = new_chain([FailingShelf()], memory=550, policy="tail/learned")
    with chain.acquire(prompt(9)) as lease:
        chain.note_computed(lease, 40.0)
    chain.slower[0].speed.note(1e6, 1.0)
    serve(chain, prompt(1), tenant="")
    chain.slower[0].cache.forget_everything()
    serve(chain, prompt(2))
    serve(chain, prompt(3))
    serve(chain, prompt(4))
    serve(chain, prompt(5))
    found = {}
    for number in (1, 2):
        with chain.fastest.acquire(prompt(number)) as lease:
            found[number] = lease.resume_position
    assert found == {1: 36, 2: 0}, "the first is the older, and nowhere else"


def test_what_a_slower_tier_drops_is_worth_its_whole_again_in_memory():
    chain = new_chain([FailingShelf()])
    chain.slower[0].speed.note(1e6, 1.0)
    with chain.acquire(prompt(9)) as lease:
        chain.note_computed(lease, 40.0)
    serve(chain, prompt(1))
    with chain.fastest.acquire(prompt(1)) as lease:
        assert lease.checkpoint.reload_cost < 1.0
    chain.slower[0].cache.forget_everything()
    assert lease.checkpoint.reload_cost == math.inf


def test_a_budget_counts_what_lies_on_the_shelf():
    shelf = FailingShelf(compression=2.0)
    chain = new_chain([shelf], below=2_000)
    fill(chain, 60)
    assert shelf.stored_bytes <= 2_000
    assert chain.tiers()[1].capacity_bytes == pytest.approx(4_000, rel=0.05)
    assert chain.tiers()[1].stored_bytes == shelf.stored_bytes
    chain.slower[0].resize(500)
    chain.check()
    assert shelf.stored_bytes <= 500


def test_a_shelf_that_refuses_loses_nothing_but_what_it_refused():
    shelf = FailingShelf()
    chain = new_chain([shelf])
    shelf.refuses = True
    serve(chain, prompt(1))
    assert chain.tiers()[1].traffic.num_lost == 5
    shelf.refuses = False
    fill(chain)
    assert serve(chain, prompt(1)).reused == 0
    fill(chain, start=300)
    assert serve(chain, prompt(1)).reused == 36


def test_a_model_without_states_brings_back_its_kv():
    chain = new_chain([FailingShelf()], footprint=STATELESS, memory=200)
    serve(chain, prompt(1))
    fill(chain)
    assert serve(chain, prompt(1)).reused == 32


def test_forgetting_everything_empties_every_tier():
    shelf = FailingShelf()
    chain = new_chain([shelf])
    serve(chain, prompt(1))
    assert chain.forget_everything() == 1
    assert not list(shelf.entries())
    assert shelf.raw_bytes == shelf.stored_bytes == 0


def test_tenants_that_are_gone_in_this_process_stay_below():
    shelf = FailingShelf()
    chain = new_chain([shelf])
    serve(chain, prompt(1))
    assert chain.forget_tenants(lambda tenant: True) == 1
    assert serve(chain, prompt(1)).reused == 36


def test_a_source_is_checked_before_any_tier_is_touched():
    shelf = FailingShelf()
    chain = new_chain([shelf])
    with chain.acquire(prompt(1)) as lease, pytest.raises(InvalidRequestError, match="methods"):
        chain.commit(lease, chain.plan(lease), object())
    with chain.acquire(prompt(1)) as lease:
        chain.commit(lease, (), None)
    assert not list(shelf.entries())
    chain.check()


def test_checkpoints_gone_from_memory_do_not_live_on_in_what_lies_below():
    chain = new_chain([FailingShelf()], memory=600)
    fill(chain, 300)
    handles = [
        checkpoint.payload
        for node in chain.slower[0].cache._store.tree.nodes()
        for checkpoint in node.checkpoints
    ]
    linked = [checkpoint for handle in handles for _, checkpoint in handle.copies.values()]
    assert len(handles) == 300
    assert 0 < len(linked) < 20
