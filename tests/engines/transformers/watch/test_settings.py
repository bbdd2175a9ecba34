"""Settings that go to and fro between requests: known again at once, and watched as closely as before."""

import random
from typing import NamedTuple

import pytest
import torch

from families import tiny_model, tiny_prompt
from milepost.engines.transformers.watch import ModelWatch, model_watch
from milepost.engines.transformers.watch.description import Description
from milepost.engines.transformers.watch.inventory import take_inventory
from milepost.engines.transformers.watch.numeric_switches import numeric_switches
from milepost.errors import ConfigurationError

# Tiny matrices gain nothing from more, and test processes would fight over the cores.
torch.set_num_threads(1)


class Rope:
    """Numbers that a layer keeps in an object of its own."""

    def __init__(self):
        self.theta, self.factors = 1.0, [1.0, 2.0]


class Layer(torch.nn.Linear):
    """A layer with settings of all kinds that its results could hang on."""

    def __init__(self):
        super().__init__(4, 4)
        self.active: str | list[str] | None = ["a"]
        self.is_off, self.kernel = False, (3, 3)
        self.scales, self.order, self.chosen = {"a": 1.0, "b": 2.0}, {"x": 1, "y": 2}, {"a"}
        self.nested = {"rope": {"theta": 1.0}, "layers": [["full"], ["linear"]]}
        self.rope = Rope()
        self.mixed = [torch.zeros(2), ["a"]]


class Window(NamedTuple):
    left: int
    tensor: torch.Tensor


class Counted:
    """A watch over layers, and how often it looked closely and ran the model."""

    def __init__(self, model, monkeypatch, run=lambda: None):
        self.num_walks = self.num_runs = 0
        self._run, upstream = run, model_watch.take_inventory
        self.watch = ModelWatch(model, settle=self.settle)

        def walk(*arguments, **options):
            self.num_walks += 1
            return upstream(*arguments, **options)

        monkeypatch.setattr(model_watch, "take_inventory", walk)

    def settle(self):
        self.num_runs += 1
        self._run()

    def look(self):
        """The identity, whether it took a close look, and whether the model was run."""
        walks, runs = self.num_walks, self.num_runs
        identity = self.watch.look()
        return identity, self.num_walks > walks, self.num_runs > runs


def layers(num_layers=3):
    return torch.nn.Sequential(*(Layer() for _ in range(num_layers))).eval()


def replace(name, value):
    return lambda layer: setattr(layer, name, value())


def settings():
    """Pairs of ways to set something and to set it back."""
    return {
        "a list replaced": (replace("active", lambda: ["b"]), replace("active", lambda: ["a"])),
        "a list for a name": (replace("active", lambda: "b"), replace("active", lambda: ["a"])),
        "a list for none": (replace("active", lambda: None), replace("active", lambda: ["a"])),
        "a list emptied": (lambda layer: layer.active.clear(), lambda layer: layer.active.append("a")),
        "a longer list": (lambda layer: layer.active.append("b"), lambda layer: layer.active.pop()),
        "a flag": (replace("is_off", lambda: True), replace("is_off", lambda: False)),
        "a tuple": (replace("kernel", lambda: (5, 5)), replace("kernel", lambda: (3, 3))),
        "a number in a dictionary": (
            lambda layer: layer.scales.update(a=3.0),
            lambda layer: layer.scales.update(a=1.0),
        ),
        "a key of a dictionary": (
            lambda layer: layer.scales.update(c=3.0),
            lambda layer: layer.scales.pop("c"),
        ),
        "a set": (lambda layer: layer.chosen.add("b"), lambda layer: layer.chosen.remove("b")),
        "a number of an object": (
            lambda layer: setattr(layer.rope, "theta", 2.0),
            lambda layer: setattr(layer.rope, "theta", 1.0),
        ),
        "a list of an object": (
            lambda layer: layer.rope.factors.reverse(),
            lambda layer: layer.rope.factors.reverse(),
        ),
        "a list among tensors": (
            lambda layer: layer.mixed[1].append("b"),
            lambda layer: layer.mixed[1].pop(),
        ),
    }


@pytest.mark.parametrize("name", settings())
def test_what_is_switched_back_is_known_without_a_close_look_or_a_forward_call(name, monkeypatch):
    model = layers()
    counted = Counted(model, monkeypatch)
    on, off = settings()[name]
    first, *_ = counted.look()
    on(model[1])
    second, is_close, is_run = counted.look()
    assert second != first
    assert (is_close, is_run) == (True, True), "what was never met is looked at closely"
    for _ in range(3):
        off(model[1])
        assert counted.look() == (first, False, False)
        on(model[1])
        assert counted.look() == (second, False, False)
        assert counted.look() == (second, False, False)


def nest(model):
    model[1].nested["rope"]["theta"] = 2.0


def unnest(model):
    model[1].nested["rope"]["theta"] = 1.0


def reorder(model):
    model[1].order["x"] = model[1].order.pop("x")


def order(model):
    model[1].order["y"] = model[1].order.pop("y")


def override(model):
    model[1].forward = halve


def restore(model):
    del model[1].forward


def halve(hidden):
    return hidden * 0.5


@pytest.mark.parametrize(("on", "off"), [(nest, unnest), (reorder, order), (override, restore)])
def test_more_than_plain_values_takes_a_close_look_each_time(on, off, monkeypatch):
    model = layers()
    counted = Counted(model, monkeypatch)
    first, *_ = counted.look()
    on(model)
    second, *_ = counted.look()
    off(model)
    assert counted.look()[:2] == (first, True)
    on(model)
    assert counted.look()[:2] == (second, True)


def test_a_switch_of_torch_is_known_again(monkeypatch):
    counted = Counted(layers(), monkeypatch)
    first, *_ = counted.look()
    with torch.autocast("cpu", torch.bfloat16):
        second, *_ = counted.look()
    assert counted.look() == (first, False, False)
    with torch.autocast("cpu", torch.bfloat16):
        assert counted.look() == (second, False, False)
        assert second != first
        assert second.shape != first.shape


def test_weights_that_changed_along_with_a_known_switch_are_seen(monkeypatch):
    model = layers()
    counted = Counted(model, monkeypatch)
    first, *_ = counted.look()
    model[0].active = ["b"]
    counted.look()
    model[0].active = ["a"]
    with torch.no_grad():
        model[2].weight.mul_(2)
    identity, is_close, is_run = counted.look()
    assert (identity.content, is_close, is_run) == (first.content + 1, True, True)
    model[0].active = ["b"]
    assert counted.look()[1:] == (True, True), "under other weights it was never met"


def test_training_mode_is_refused_along_with_a_known_switch(monkeypatch):
    model = layers()
    counted = Counted(model, monkeypatch)
    for name in ("b", "a"):
        model[0].active = [name]
        counted.look()
    model[0].active = ["b"]
    model[2].training = True
    with pytest.raises(ConfigurationError, match="training mode"):
        counted.look()


def test_merged_adapters_are_no_plain_values(monkeypatch):
    model = layers()
    model[0].merged_adapters = []
    counted = Counted(model, monkeypatch)
    content = counted.look()[0].content
    model[0].merged_adapters.append("a")
    assert counted.look()[0].content == content + 1
    model[0].merged_adapters = []
    assert counted.look()[0].content == content + 2


def test_a_list_that_several_layers_share_is_watched_under_each_of_them(monkeypatch):
    model = layers()
    counted = Counted(model, monkeypatch)
    first, *_ = counted.look()
    shared = ["b"]
    for layer in model:
        layer.active = shared
    second, *_ = counted.look()
    for layer in model:
        layer.active = ["a"]
    assert counted.look() == (first, False, False)
    for layer in model:
        layer.active = shared
    assert counted.look() == (second, False, False)
    model[0].active = ["b"]
    assert counted.look() == (second, False, False)
    shared[0] = "a"
    third, is_close, _ = counted.look()
    assert is_close
    assert third not in (first, second)
    model[0].active[0] = "a"
    assert counted.look() == (first, False, False)


def test_whatever_is_switched_a_quick_answer_is_that_of_a_close_look(monkeypatch):
    """At random, several at once; a description made from nothing is the oracle."""
    model, at_random = layers(), random.Random(0)
    counted = Counted(model, monkeypatch)
    content = counted.look()[0].content
    pairs = list(settings().values())
    is_on: set[tuple[int, int]] = set()
    # So few that many are met again.
    places = [(layer, pair) for layer in range(2) for pair in at_random.sample(range(len(pairs)), 3)]
    num_quick = 0
    for _ in range(150):
        for place in at_random.sample(places, at_random.randrange(3)):
            pairs[place[1]][place in is_on](model[place[0]])
            is_on ^= {place}
        identity, is_close, _ = counted.look()
        num_quick += not is_close
        expected = Description(take_inventory(model), numeric_switches("cpu"), counted.watch._serials)
        assert (identity.digest, identity.shape) == expected.digests(content)
        assert identity.content == content
    assert num_quick > 50


def test_a_named_tuple_on_a_module_is_looked_at_like_any_other(monkeypatch):
    model = layers()
    model[0].window = Window(3, torch.ones(2))
    counted = Counted(model, monkeypatch)
    content = counted.look()[0].content
    model[0].window.tensor.mul_(2)
    assert counted.look()[0].content == content + 1


def test_adapters_of_peft_that_are_known_cost_no_close_look(monkeypatch):
    peft = pytest.importorskip("peft")
    model = tiny_model("qwen3_5")
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "gate_proj"], init_lora_weights=False)
    wrapped = peft.get_peft_model(model, config, adapter_name="one")
    wrapped.add_adapter("two", config)
    model.eval()
    counted = Counted(model, monkeypatch, lambda: model(input_ids=tiny_prompt(2)))

    def look_at_all():
        wrapped.set_adapter("two")
        yield counted.look()
        with wrapped.disable_adapter():
            yield counted.look()
        yield counted.look()
        wrapped.set_adapter("one")
        yield counted.look()
        wrapped.base_model.set_adapter(["one", "two"])
        yield counted.look()
        wrapped.base_model.set_adapter(["two", "one"])
        yield counted.look()

    first = [identity for identity, *_ in look_at_all()]
    assert len(set(first)) == 5, "after the context it is adapter two again"
    assert list(look_at_all()) == [(identity, False, False) for identity in first]
