"""What the cache dropped lives nowhere else."""

import gc
import weakref

import pytest
import torch
from tiny_engine import (
    branching_prompts,
    open_engine,
)

from families import tiny_prompt
from milepost.engines import payloads as payloads_module

# Tiny matrices gain nothing from more, and test processes would fight over the cores.
torch.set_num_threads(1)


def live_payload_bytes(payloads) -> int:
    gc.collect()
    return sum(payload.num_bytes for reference in payloads if (payload := reference()) is not None)


@pytest.mark.parametrize("numerics", ["strict", "fast"])
def test_what_the_cache_dropped_lives_nowhere_else(model, monkeypatch, numerics):
    made = []
    for name in ("StoredState", "StoredKV"):
        kind = getattr(payloads_module, name)

        def note(self, *args, upstream=kind.__init__, **fields):
            upstream(self, *args, **fields)
            made.append(weakref.ref(self))

        tracked = type(name, (kind,), {"__slots__": ("__weakref__",), "__init__": note})
        monkeypatch.setattr(payloads_module, name, tracked)
    engine = open_engine(model, policy="dense:64", capacity=4 * 58_880, numerics=numerics)
    generations = [
        engine.submit(prompt, max_new_tokens=number, ignore_end_token=True)
        for number, prompt in enumerate(branching_prompts(), start=1)
    ]
    while not generations[0].is_done:
        engine.step()
    while engine.step():
        held = engine.cache.statistics()
        if all(g.num_prompt_tokens_done == g.request.tokens.size for g in generations):
            assert live_payload_bytes(made) == held.checkpoint_bytes + held.kv_bytes
    completions = [generation.completion() for generation in generations]
    held = engine.cache.statistics()
    assert held.num_evictions > 5
    assert live_payload_bytes(made) == held.checkpoint_bytes + held.kv_bytes > 0
    del completions


def test_a_request_that_is_given_up_keeps_no_payload_alive(engine):
    prompt = tiny_prompt(300)[0].numpy()
    engine.generate(prompt[:150], max_new_tokens=1)
    generation = engine.submit(prompt)
    engine.step()
    lease = generation.prompt.lease
    assert lease.resume_position == 128
    generation.close()
    assert generation.prompt.lease is None
    assert lease.state is None
    assert not lease.kv_segments
