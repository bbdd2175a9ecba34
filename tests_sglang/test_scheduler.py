"""SGLang's own scheduler over chunks that are cut: it forgets no prompt, and computes each token once."""

import json
import random

import pytest
from bare_scheduler import BareScheduler
from benchmarks.sglang.bare_engine import BareEngine
from sglang.srt.managers.schedule_policy import PrefillAdder
from test_placement import tokens


def scheduler(monkeypatch, *, stop_tokens, chunk=2048):
    monkeypatch.setenv("MILEPOST_SGLANG", json.dumps({"stop_tokens": stop_tokens}))
    engine = BareEngine("milepost", num_states=120, num_kv_tokens=1 << 16, chunk=chunk)
    return BareScheduler(engine, monkeypatch, chunk=chunk)


def serve(queue, num_rounds, *, seed=0):
    """Serve prompts on a few documents that come while others are computed; return how long each was."""
    drawn, lengths = random.Random(seed), {}
    for number in range(num_rounds):
        for _ in range(drawn.choice((0, 0, 1, 1, 2, 3))):
            shared = tokens(drawn.randrange(5), drawn.choice((300, 900, 1800, 2600, 5000)))
            prompt = [*shared, *tokens(1000 + len(lengths), drawn.randrange(1, 700))]
            name = f"request {len(lengths)}"
            lengths[name] = len(prompt)
            queue.add(name, prompt)
        queue.step()
        if number % 20 == 0:
            queue.engine.check()
    while queue.step():
        pass
    return lengths


@pytest.mark.parametrize("chunk", [512, 2048])
def test_prompts_side_by_side_are_computed_once_whatever_is_cut(monkeypatch, chunk):
    queue = scheduler(monkeypatch, stop_tokens=0, chunk=chunk)
    lengths = serve(queue, 150)

    engine = queue.engine
    assert queue.waiting_queue == []
    assert queue.chunked_req is None
    hits = {name: running.hit for name, running in queue._memory.items()}
    assert queue.num_computed == {name: length - hits[name] for name, length in lengths.items()}
    assert engine.manager.counts.stops > 20
    assert engine.manager.counts.off_grid == 0
    assert engine.num_restored > len(lengths) // 3
    beside = [batch for batch in queue.batches if len(batch) > 1]
    assert any(end < lengths[name] for batch in beside for name, _, end in batch), "cut beside others"
    assert all(sum(end < lengths[name] for name, _, end in batch) <= 1 for batch in queue.batches)
    engine.check()
    engine.check_leaks()


def test_without_the_guard_a_prompt_is_forgotten(monkeypatch):
    guarded = PrefillAdder._select_prefill_admission

    def unguarded(adder, req, **options):
        held, adder.new_chunked_req = adder.new_chunked_req, None
        admission = guarded(adder, req, **{**options, "has_chunked_req": False})
        adder.new_chunked_req = held
        return admission

    queue = scheduler(monkeypatch, stop_tokens=0)
    monkeypatch.setattr(PrefillAdder, "_select_prefill_admission", unguarded)
    with pytest.raises(AssertionError):
        serve(queue, 150)


def test_every_state_that_was_planned_at_the_price_of_a_chunk_is_captured(monkeypatch):
    queue = scheduler(monkeypatch, stop_tokens=0, chunk=4096)
    serve(queue, 60)
    manager, promised = queue.engine.manager, []
    admit = manager.admit
    monkeypatch.setattr(
        manager,
        "admit",
        lambda name, *args, **known: (
            admit(name, *args, **known) or promised.append((name, tuple(manager._requests[name].awaited)))
        ),
    )
    queue.batches.clear()
    queue.add("alone", [*tokens(900, 3000), *tokens(901, 500)])
    while queue.step():
        pass

    ((_, positions),) = promised
    assert len(positions) > 1
    assert len(queue.batches) == len(positions), "in one chunk it would have fitted"
    assert queue._memory["alone"].tracked == list(positions)


def test_with_the_price_of_a_pass_hardly_any_chunk_is_cut(monkeypatch):
    counts = []
    for price in (0, 1024):
        queue = scheduler(monkeypatch, stop_tokens=price)
        serve(queue, 100)
        counts.append(queue.engine.manager.counts.stops)
    assert counts[1] < counts[0] / 4
