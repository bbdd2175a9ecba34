"""Torch's operators are replaced behind the engine's back: what is computed then has its own identity."""

import pickle

import pytest
import torch

from families import tiny_model, tiny_prompt
from milepost.engines.engine import Engine
from milepost.engines.transformers.watch import ModelWatch

# Tiny matrices gain nothing from more, and test processes would fight over the cores.
torch.set_num_threads(1)

PROMPT = tiny_prompt(200, seed=1)[0].numpy()
HIT = 192


def open_engine():
    model = tiny_model("qwen3_5")
    return Engine.open(model, capacity="64MiB", segment_tokens=64, policy="dense:64", audit=0)


def ask(engine, *, tenant="warm"):
    answer = engine.generate(PROMPT, max_new_tokens=1, tenant=tenant)
    return answer.prompt_logits_digest, answer.report.reused


def halved(upstream):
    return lambda *arguments, **options: upstream(*arguments, **options).div(2)


def replaced(owner, name):
    def replace(monkeypatch):
        monkeypatch.setattr(owner, name, halved(getattr(owner, name)), raising=False)

    return replace


def kernel(monkeypatch):
    library = torch.library.Library("aten", "IMPL")
    library.impl("silu", lambda hidden: hidden * torch.sigmoid(hidden) * 0.5, "CPU")
    return library._destroy


@pytest.mark.filterwarnings("ignore:Warning only once:UserWarning")
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(replaced(torch, "rsqrt"), id="a function of torch"),
        pytest.param(replaced(torch._C._nn, "silu"), id="a function below torch.nn.functional"),
        pytest.param(replaced(torch.Tensor, "__mul__"), id="an operator of tensors"),
        pytest.param(replaced(torch.Tensor, "exp"), id="a method of tensors"),
        pytest.param(kernel, id="a kernel"),
    ],
)
def test_a_replaced_operator_has_states_of_its_own_and_the_old_ones_come_back(change, monkeypatch):
    engine = open_engine()
    before, _ = ask(engine)
    undo = change(monkeypatch)
    try:
        cold, reused = ask(engine, tenant="cold")
        assert reused == 0
        assert cold != before, "the operator has to matter"
        assert ask(engine) == (cold, 0)
        assert ask(engine) == (cold, HIT)
    finally:
        monkeypatch.undo()
        (undo or (lambda: None))()
    assert ask(engine) == (before, HIT)


def test_without_a_look_states_of_another_operator_would_be_served(monkeypatch):
    engine = open_engine()
    identity = engine._served.admission.identify()
    ask(engine)
    monkeypatch.setattr(ModelWatch, "look", lambda self: identity)
    monkeypatch.setattr(torch, "rsqrt", halved(torch.rsqrt))
    cold, _ = ask(engine, tenant="cold")
    warm, reused = ask(engine)
    assert reused == HIT
    assert warm != cold


@pytest.mark.parametrize(
    "change",
    [
        lambda monkeypatch: monkeypatch.setattr(torch, "a_submodule", pytest, raising=False),
        lambda monkeypatch: monkeypatch.setattr(torch, "a_note", "seen", raising=False),
    ],
)
def test_what_computes_nothing_costs_no_states(change, monkeypatch):
    engine = open_engine()
    before, _ = ask(engine)
    change(monkeypatch)
    assert ask(engine) == (before, HIT)


def test_the_first_pickling_of_a_tensor_costs_no_states():
    engine = open_engine()
    for kind in (torch.Tensor, torch.nn.Parameter):
        if "__slotnames__" in vars(kind):
            del kind.__slotnames__
    before, _ = ask(engine)
    pickle.dumps(engine.driver.model)
    assert "__slotnames__" in vars(torch.nn.Parameter), "the case has to arise"
    assert ask(engine) == (before, HIT)


def test_a_kernel_of_shapes_or_of_an_operator_of_its_own_costs_no_states():
    engine = open_engine()
    before, _ = ask(engine)
    library = torch.library.Library("milepost_test", "DEF")
    try:
        library.define("twice(Tensor hidden) -> Tensor")
        library.impl("twice", lambda hidden: hidden * 2, "CPU")
        library.impl("twice", torch.empty_like, "Meta")
        assert ask(engine) == (before, HIT)
    finally:
        library._destroy()
