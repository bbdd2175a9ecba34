"""The look itself: what it leaves out, what it holds on to, and what it costs."""

import gc
import time
import weakref

import pytest
import torch
from torch.optim.optimizer import _global_optimizer_post_hooks as hooks
from transformers import AutoModelForCausalLM

from families import tiny_config, tiny_model, tiny_prompt
from milepost.engines.engine import Engine
from milepost.engines.transformers.watch import ModelWatch
from milepost.engines.transformers.watch.description import Serials
from milepost.engines.transformers.watch.numeric_switches import SWITCH_NAMES, numeric_switches

# Tiny matrices gain nothing from more, and test processes would fight over the cores.
torch.set_num_threads(1)


class Restless(torch.nn.Module):
    """A layer that counts its calls, keeps what it computed last, and rescales itself once."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)
        self.register_buffer("last", torch.zeros(4))
        self.num_calls, self.seen, self.is_scaled = 0, {}, False

    @torch.no_grad()
    def forward(self, hidden):
        if not self.is_scaled:
            self.linear.weight.mul_(0.5)
            self.is_scaled = True
        self.num_calls += 1
        self.seen[self.num_calls] = hidden
        self.last = self.linear(hidden)
        return self.last


def watched(module):
    def run():
        return module(torch.ones(4))

    watch = ModelWatch(module.eval(), settle=run)
    watch.learn_restless(run)
    return watch


def test_what_a_plain_forward_call_changes_is_left_out_and_all_else_is_not(caplog):
    module = Restless()
    with caplog.at_level("INFO"):
        watch = watched(module)
    identity = watch.look()
    assert all(name in caplog.text for name in ("num_calls", "seen", "last"))
    assert "weight" not in caplog.text
    for _ in range(3):
        module(torch.ones(4))
        assert watch.look() == identity
    module.linear.weight.data = module.linear.weight.data.clone()
    assert watch.look().content == identity.content + 1


def test_what_the_model_does_itself_after_a_change_is_part_of_that_change():
    module = Restless()
    watch = watched(module)
    module.is_scaled = False
    with torch.no_grad():
        module.linear.weight.mul_(2)
    identity = watch.look()
    module(torch.ones(4))
    assert watch.look() == identity


def test_a_fused_optimizer_is_seen_although_it_leaves_the_counters_as_they_are():
    module, stranger = Restless(), torch.nn.Linear(4, 4)
    watch = watched(module)
    content = watch.look().content

    def step(trained):
        optimizer = torch.optim.AdamW(trained.parameters(), fused=True)
        trained.weight.grad = torch.ones_like(trained.weight)
        versions = trained.weight._version
        optimizer.step()
        return trained.weight._version - versions

    step(stranger)
    assert watch.look().content == content
    step(module.linear)
    assert watch.look().content == content + 1


def test_the_hook_on_optimizers_goes_with_the_watch():
    gc.collect()  # the watches of other tests
    before = len(hooks)
    watch = watched(Restless())
    assert len(hooks) == before + 1
    del watch
    gc.collect()
    assert len(hooks) == before


def test_weights_that_are_replaced_are_not_kept_alive_past_the_next_look():
    module = Restless()
    watch = watched(module)
    gone = weakref.ref(module.linear)
    storage = weakref.ref(module.linear.weight.untyped_storage())
    module.linear = torch.nn.Linear(4, 4).eval()
    watch.look()
    gc.collect()
    assert gone() is None
    assert storage() is None


def test_the_number_of_an_object_that_is_gone_is_never_given_again():
    class Thing:
        pass

    serials = Serials()
    seen = set()
    for _ in range(100):
        thing = Thing()
        assert serials.of(thing) == serials.of(thing)
        assert serials.of(thing) not in seen
        seen.add(serials.of(thing))
        del thing
    assert not serials._known


def test_numeric_switches_have_names_and_are_read_the_same_twice():
    assert len(SWITCH_NAMES) == len(set(SWITCH_NAMES)) == len(numeric_switches("cpu"))
    assert numeric_switches("cpu") == numeric_switches("cpu")
    assert numeric_switches("meta")[-2:] == (None, None)
    before = numeric_switches("cpu")
    torch.set_float32_matmul_precision("high")
    assert numeric_switches("cpu") != before
    torch.set_float32_matmul_precision("highest")
    assert numeric_switches("cpu") == before


def test_a_look_at_a_thousand_parameters_takes_under_a_millisecond():
    config = tiny_config("qwen3_5")
    config.num_hidden_layers *= 19
    config.layer_types = config.layer_types * 19
    model = AutoModelForCausalLM.from_config(config).eval()
    assert len(list(model.parameters())) > 1000
    watch = ModelWatch(model, settle=lambda: model(input_ids=tiny_prompt(2)))
    identity = watch.look()
    seconds = []
    for _ in range(50):
        started = time.process_time()
        assert watch.look() is identity
        seconds.append(time.process_time() - started)
    # The benchmark says what it takes; here, a machine may be busy.
    assert min(seconds) < 2e-3


@pytest.mark.parametrize("family", ["qwen3_5", "qwen3"])
def test_a_request_takes_one_look_and_one_more_where_it_stores_or_decodes(family, monkeypatch):
    engine = Engine.open(tiny_model(family), capacity="64MiB", segment_tokens=64, policy="dense:64")
    looks = []
    upstream = ModelWatch.look
    monkeypatch.setattr(ModelWatch, "look", lambda self: looks.append(1) or upstream(self))
    engine.generate(tiny_prompt(10)[0].numpy(), max_new_tokens=1)
    assert len(looks) == 1
    engine.generate(tiny_prompt(200)[0].numpy(), max_new_tokens=1)
    assert len(looks) == 3
    engine.generate(tiny_prompt(10)[0].numpy(), max_new_tokens=8, ignore_end_token=True)
    assert len(looks) == 5
