"""What a checkpoint manager keeps, without vLLM: promises, beliefs, room, and nothing left open."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from small_vllm import SmallVllm

BLOCK = 16
DOCUMENT = list(range(1000, 1160))


def taught(**options) -> SmallVllm:
    """A pool that has seen that prompts diverge after the document."""
    vllm = SmallVllm(**options)
    for last in range(4):
        vllm.serve([*DOCUMENT, *range(last * 50, last * 50 + 30)])
    return vllm


def test_what_is_shared_is_resumed_from():
    vllm = taught()
    hits = [vllm.serve([*DOCUMENT, *range(500 + i, 530 + i)]).hit for i in range(3)]
    assert hits == [len(DOCUMENT)] * 3
    vllm.check()
    assert vllm.checkpoint_manager.counts.hits >= 3


def test_the_account_is_that_of_the_requests():
    vllm = SmallVllm()
    served = [vllm.serve([*DOCUMENT, *range(i * 40, i * 41 + 33)]) for i in range(6)]
    account = vllm.checkpoint_manager.statistics()
    assert account.num_requests == 6
    assert account.num_tokens == sum(len(request.tokens) for request in served)
    assert account.reused == sum(request.hit for request in served)


def test_chunks_end_where_a_checkpoint_is_planned_and_it_is_kept():
    vllm = SmallVllm(chunk=1000)
    request = vllm.serve([*DOCUMENT, 1, 2, 3])
    assert request.ends[:-1] == [at for at in vllm.kept(request.tokens) if at < len(request.tokens)]
    assert vllm.checkpoint_manager.counts.kept == vllm.checkpoint_manager.counts.planned


def stock_ends(request, vllm) -> set:
    """Where stock vLLM would end chunks of a request that was served: tail and junction, and its end."""
    length, block = len(request.tokens), vllm.layout.block_tokens
    return {(length - 1) // block * block, request.overlap // block * block, length}


@pytest.mark.parametrize("most", [1, 2, 5])
def test_no_request_stops_more_often_than_allowed(most):
    vllm = SmallVllm(chunk=10_000, num_blocks=2000, max_stops=most)
    for last in range(8):
        for tokens in (
            [*range(100 * last, 100 * last + 10), *range(2000)],
            [*range(800), *range(last, 1200 + last)],
        ):
            request = vllm.serve(tokens)
            assert len(set(request.ends) - stock_ends(request, vllm)) <= most


def test_before_anything_was_learned_a_prompt_stops_where_stock_vllm_stops_and_nowhere_else():
    vllm = SmallVllm(chunk=10_000, num_blocks=4000, stop_tokens=None)
    for number in range(20):
        request = vllm.serve(range(10_000 * number, 10_000 * number + 1000 + 37 * number))
        assert set(request.ends) == stock_ends(request, vllm) - {0}


def test_what_nobody_returns_to_is_not_stopped_more_often_than_by_stock_vllm():
    vllm = SmallVllm(chunk=10_000, num_blocks=2000, stop_tokens=32)
    ends = [vllm.serve(range(1000 * n, 1000 * n + 300)).ends for n in range(60)]
    assert [len(each) for each in ends] == [2] * 60
    hits = [vllm.serve([*range(500_000, 500_300), *range(n, n + 40)]).hit for n in range(40)]
    assert hits[-1] > 200, "until somebody does"
    vllm.check()


def test_where_a_stop_is_dear_only_stops_that_save_more_are_made():
    shared, others = [*range(5000)], Random(0)

    def extra_stops(stop_tokens):
        vllm = SmallVllm(chunk=10_000, num_blocks=20_000, stop_tokens=stop_tokens)
        served = [
            vllm.serve([*shared[: others.randrange(500, 5000)], *range(10_000 * n, 10_000 * n + 40)])
            for n in range(1, 60)
        ]
        return sum(len(set(each.ends) - stock_ends(each, vllm)) for each in served)

    assert extra_stops(0) > 0
    assert extra_stops(100_000) == 0


def test_promises_that_were_not_kept_are_taken_back():
    vllm = SmallVllm(chunk=16)
    request = vllm.ask([*DOCUMENT, 1, 2, 3])
    assert vllm.step(request)
    assert vllm.checkpoint_manager.statistics().num_checkpoints > 0
    promised = vllm.checkpoint_manager.statistics().num_checkpoints
    vllm.finish(request)
    kept = vllm.kept(request.tokens)
    assert vllm.checkpoint_manager.statistics().num_checkpoints == len(kept) < promised
    assert vllm.checkpoint_manager.counts.kept == len(kept)
    vllm.check()


def test_aborted_while_waiting():
    vllm = taught()
    before = vllm.checkpoint_manager.statistics()
    request = vllm.ask([*DOCUMENT, 7, 8, 9])
    vllm.plan_request(request)
    assert vllm.checkpoint_manager.num_open == 1
    vllm.finish(request)
    after = replace(vllm.checkpoint_manager.statistics(), capacity_bytes=before.capacity_bytes)
    assert after == before, "it was no request"
    vllm.check()


def test_looked_up_ten_times_before_it_is_admitted():
    vllm = taught()
    before = vllm.checkpoint_manager.statistics().num_requests
    request = vllm.ask([*DOCUMENT, 7, 8, 9])
    for _ in range(10):
        assert vllm.plan_request(request) == len(DOCUMENT)
    assert vllm.checkpoint_manager.num_open == 1
    while request.computed < len(request.tokens):
        assert vllm.step(request)
    vllm.finish(request)
    assert vllm.checkpoint_manager.statistics().num_requests == before + 1
    vllm.check()


def test_preempted_it_keeps_what_was_captured_and_counts_once():
    vllm = SmallVllm(chunk=16)
    request = vllm.ask([*DOCUMENT, *range(30)])
    while not vllm.kept(request.tokens):
        assert vllm.step(request)
    captured = vllm.kept(request.tokens)
    vllm.preempt(request)
    assert vllm.plan_request(request) == captured[-1]
    vllm.check(is_idle=False)
    while request.computed < len(request.tokens):
        assert vllm.step(request)
    vllm.finish(request)
    vllm.check()
    assert vllm.kept(request.tokens) == captured
    assert vllm.checkpoint_manager.statistics().num_requests == 1


def test_a_belief_goes_when_the_pool_has_lost_the_block():
    vllm = taught()
    lost = vllm.hashes(DOCUMENT)[-1]
    vllm.pool.lose(lost)
    request = vllm.serve([*DOCUMENT, 7, 8, 9])
    assert request.hit < len(DOCUMENT)
    assert vllm.checkpoint_manager.counts.stale >= 1
    assert vllm.checkpoint_manager.statistics().reused <= request.hit + 4 * len(DOCUMENT)


def test_a_request_that_must_not_read_resumes_nowhere():
    vllm = taught()
    before = vllm.checkpoint_manager.statistics()
    request = vllm.serve([*DOCUMENT, 7, 8, 9], may_hit=False)
    after = vllm.checkpoint_manager.statistics()
    assert (request.hit, request.ends[0] <= 64, after.reused) == (0, True, before.reused)
    assert vllm.checkpoint_manager.counts.stale == 0, "what is there is believed still"
    assert vllm.serve([*DOCUMENT, 10, 11]).hit == len(DOCUMENT)
    vllm.check()


def test_two_with_the_same_prompt_side_by_side():
    vllm = SmallVllm(chunk=32)
    one, two = (vllm.ask([*DOCUMENT, 1, 2, 3]) for _ in range(2))
    for _ in range(20):
        for request in (one, two):
            if request.computed < len(request.tokens):
                assert vllm.step(request)
                vllm.check(is_idle=False)
    vllm.finish(one)
    vllm.check(is_idle=False)
    vllm.finish(two)
    vllm.check()
    assert vllm.serve([*DOCUMENT, 1, 2, 3]).hit > 0


def test_one_of_two_with_the_same_prompt_goes_early():
    vllm = SmallVllm(chunk=32)
    one, two = (vllm.ask([*DOCUMENT, 1, 2, 3]) for _ in range(2))
    assert vllm.step(one)
    assert vllm.step(two)
    vllm.finish(one)
    while two.computed < len(two.tokens):
        assert vllm.step(two)
    vllm.finish(two)
    vllm.check()
    assert vllm.serve([*DOCUMENT, 1, 2, 3]).hit > 0


def test_what_another_has_promised_deeper_hides_no_stop_before_it():
    vllm = SmallVllm(chunk=16)
    one, two = vllm.ask([*range(32), *range(500, 532)]), vllm.ask(range(32))
    assert vllm.step(one)
    assert vllm.step(two)
    stops = vllm.checkpoint_manager._requests[two.name].stops
    assert vllm.step(two)
    assert stops == (16, 32), "32 was promised before 16"
    vllm.finish(one)
    assert vllm.kept(two.tokens) == [16, 32], "both were computed"
    vllm.finish(two)
    vllm.check()


def test_a_pool_too_small_for_one_prompt_with_a_checkpoint():
    vllm = SmallVllm(num_blocks=17)
    request = vllm.serve(DOCUMENT)
    assert request.ends[-1] == len(DOCUMENT)
    vllm.check()


def test_prompts_shorter_than_a_block_are_left_alone():
    vllm = SmallVllm()
    for _ in range(3):
        assert vllm.serve([1, 2, 3]).hit == 0
    assert vllm.checkpoint_manager.statistics().num_requests == 0
    vllm.check()


def test_positions_inside_a_block_are_kept_where_they_can_be_matched():
    vllm = SmallVllm(match=4, chunk=1000)
    shared = list(range(44))
    for last in range(5):
        vllm.serve([*shared, *range(100 * last + 500, 100 * last + 530)])
    request = vllm.serve([*shared, *range(2000, 2020)])
    assert 2 * BLOCK < request.hit <= len(shared)
    assert request.hit % BLOCK
    vllm.check()


def test_kv_behind_the_last_checkpoint_cannot_be_found():
    vllm = SmallVllm()
    request = vllm.ask([*DOCUMENT, *range(64)])
    while request.computed < len(request.tokens):
        assert vllm.step(request)
        limit = vllm.checkpoint_manager.kv_limit(request.name)
        found = [at for at, each in enumerate(vllm.hashes(request.tokens), 1) if (each, 3) in vllm.pool.found]
        assert not found or found[-1] * BLOCK <= max(limit, *vllm.kept(request.tokens), 0)
    vllm.finish(request)
    vllm.check()


def test_room_is_made_of_what_is_worth_least():
    vllm = taught(num_blocks=120)
    for other in range(6):
        vllm.serve(range(5000 + 1000 * other, 5100 + 1000 * other))
        vllm.serve([*DOCUMENT, *range(700 + other, 730 + other)])
    assert vllm.checkpoint_manager.statistics().num_evictions > 0
    assert vllm.serve([*DOCUMENT, 3, 2, 1]).hit == len(DOCUMENT), "it was asked for again and again"
    vllm.check()


def test_making_room_stops_where_nothing_is_left():
    vllm = taught()
    vllm.checkpoint_manager.make_room(10**6)
    assert vllm.checkpoint_manager.statistics().num_checkpoints == 0
    assert vllm.pool.num_clean(10**6) == 200
    vllm.check()


def test_cleared_with_the_pool():
    vllm = taught()
    waiting = vllm.ask([*DOCUMENT, 7, 8, 9])
    vllm.plan_request(waiting)
    for block in range(200):
        vllm.pool.wipe(block)
    vllm.checkpoint_manager.clear()
    assert vllm.checkpoint_manager.num_open == 0, "it will be looked up again"
    assert vllm.plan_request(waiting) == 0
    vllm.finish(waiting)
    before = vllm.checkpoint_manager.statistics()
    assert before.num_checkpoints == 0
    assert vllm.serve([*DOCUMENT, 7, 8, 9]).hit == 0
    after = vllm.checkpoint_manager.statistics()
    assert after.reset - before.reset == len(DOCUMENT)
    assert (after.placement, after.eviction) == (before.placement, before.eviction)
    vllm.check()


def test_cleared_while_requests_run():
    vllm = taught()
    running = vllm.ask([*DOCUMENT, *range(2000, 2064)])
    assert vllm.step(running)
    vllm.preempt(running)
    for block in range(200):
        vllm.pool.wipe(block)
    vllm.checkpoint_manager.clear()
    assert vllm.plan_request(running) == 0
    while running.computed < len(running.tokens):
        assert vllm.step(running)
    vllm.finish(running)
    vllm.check()


def revisions(vllm, *, seed):
    """Serve documents that are written on from a random place, until most of the pool has been evicted."""
    random = Random(seed)
    documents = [[random.randrange(1000) for _ in range(300)] for _ in range(4)]
    for _ in range(40):
        document = random.choice(documents)
        document[random.randrange(20, 300) :] = [random.randrange(1000) for _ in range(300)]
        del document[300:]
        vllm.serve(document[: random.randrange(60, 300)])


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("match", [16, 4])
def test_a_checkpoint_finds_its_kv_where_another_on_its_path_made_room_for_it(match, batch):
    for seed in range(12):
        late, at_once = (SmallVllm(num_blocks=60, match=match, chunk=48, batch=each) for each in (batch, 0))
        for vllm in (late, at_once):
            revisions(vllm, seed=seed)
            vllm.check()
            assert vllm.pool.wanted <= vllm.pool.found.keys()
        assert late.checkpoint_manager.statistics().num_evictions > 0
        assert late.checkpoint_manager.statistics() == at_once.checkpoint_manager.statistics()


prompts = st.tuples(st.integers(0, 2), st.integers(1, 120), st.integers(0, 40), st.integers(0, 3))
asks = st.tuples(st.just("ask"), prompts, st.booleans())
steps = st.tuples(st.just("step"), st.integers(0, 7))
turns = st.tuples(st.sampled_from(["preempt", "abort", "plan_request"]), st.integers(0, 7))
losses = st.tuples(st.just("lose"), st.integers(0, 200))
pools = {
    "num_blocks": st.sampled_from([20, 45, 120]),
    "match": st.sampled_from([16, 4]),
    "chunk": st.sampled_from([16, 48]),
}


def scripts(*actions):
    return st.lists(st.one_of(asks, asks, steps, steps, steps, steps, *actions), min_size=8, max_size=60)


def follow_script(script, *, is_checked=True, **options) -> SmallVllm:
    """Return a pool through which a script of requests has gone."""
    vllm = SmallVllm(**options)
    num_blocks = options["num_blocks"]
    alive = []
    for action, what, *more in script:
        if action == "ask":
            document, shared, own, branch = what
            tokens = [*range(1000 * document, 1000 * document + shared), *(-1 - branch for _ in range(own))]
            alive.append(vllm.ask(tokens, may_hit=more[0]))
        elif action == "lose":
            if vllm.pool.references[what % num_blocks] == 0 and vllm.pool.keys[what % num_blocks]:
                # As vLLM does where it needs a block: it comes to the head of the queue without its hashes.
                vllm.pool.wipe(what % num_blocks)
                vllm.pool.free.remove(what % num_blocks)
                vllm.pool.free.appendleft(what % num_blocks)
        elif alive:
            request = alive[what % len(alive)]
            is_done = request.computed == len(request.tokens)
            if action == "abort" or (is_done and action == "step"):
                vllm.finish(request)
                alive.remove(request)
            elif action == "preempt" and request.is_admitted:
                vllm.preempt(request)
            elif action == "plan_request" and not request.is_admitted:
                vllm.plan_request(request)
            elif action == "step":
                vllm.step(request)
        if is_checked:
            vllm.check(is_idle=False)
    for request in alive:
        vllm.finish(request)
    vllm.check()
    return vllm


# The second policy asks for more than there is room for.
@settings(max_examples=120)
@given(
    scripts(turns, losses),
    st.fixed_dictionaries({**pools, "policy": st.sampled_from(["learned", "dense:16"])}),
)
def test_whatever_happens_nothing_stays_open_and_no_block_is_beyond_reach(script, pool):
    vllm = follow_script(script, **pool)
    vllm.checkpoint_manager.make_room(pool["num_blocks"])
    assert vllm.pool.num_clean(pool["num_blocks"]) == pool["num_blocks"]


def plans_before_what_is_promised(own):
    """Return a script of two side by side; of what the second plans, the first has promised the deeper."""
    first, second, short = (1, 32, 32, 0), (1, 32, own, 0), (0, 1, 0, 0)
    asked = [("ask", prompt, False) for prompt in (first, second, short, short)]
    return [asked[0], ("step", 0), asked[1], ("step", 1), *asked[2:], ("step", 1)]


@settings(max_examples=120)
@given(scripts(turns), st.fixed_dictionaries(pools), st.sampled_from([1, 3]))
@example(plans_before_what_is_promised(0), {"num_blocks": 20, "match": 16, "chunk": 16}, 3)
@example(plans_before_what_is_promised(1), {"num_blocks": 20, "match": 16, "chunk": 48}, 3)
def test_it_decides_the_same_where_it_catches_up_late(script, pool, batch):
    late, at_once = (follow_script(script, batch=each, is_checked=False, **pool) for each in (batch, 0))
    # Where the cache says no to a promise, who hears of it late stops once more.
    assume(at_once.checkpoint_manager.statistics().checkpoints_rejected == 0)
    assert late.checkpoint_manager.statistics() == at_once.checkpoint_manager.statistics()
    assert late.checkpoint_manager.counts == at_once.checkpoint_manager.counts
    assert late.pool.found.keys() == at_once.pool.found.keys()
