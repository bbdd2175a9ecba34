"""The model is changed behind the engine's back: states of what it was are never served to what it is."""

import copy
import functools
import io
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import MethodType, SimpleNamespace
from typing import Any

import pytest
import torch
from packed_weights import HangingScales, ScalesBeside, pack
from torch.nn.utils import parametrize, prune

from families import ALL_FAMILIES, tiny_model, tiny_prompt
from milepost.engines.engine import Engine
from milepost.engines.transformers.watch import ModelWatch
from milepost.errors import ConfigurationError, MilepostError, ModelChangedError, UnsupportedModelError

# Tiny matrices gain nothing from more, and test processes would fight over the cores.
torch.set_num_threads(1)

PROMPT = tiny_prompt(200, seed=1)[0].numpy()
# The deepest checkpoint before the last token.
HIT = 192


def open_engine(model, **options) -> Engine:
    return Engine.open(
        model, **{"capacity": "64MiB", "segment_tokens": 64, "policy": "dense:64", "audit": 0} | options
    )


def ask(engine, **options):
    return engine.generate(PROMPT, **{"max_new_tokens": 3, "ignore_end_token": True} | options)


def cold(engine):
    """What the model answers now without any state: a tenant that never comes twice has none."""
    cold.count += 1
    answer = ask(engine, tenant=f"cold {cold.count}")
    assert answer.report.reused == 0
    return answer


cold.count = 0


def assert_answers_as_it_computes_now(engine, *, reused):
    warm, expected = ask(engine), cold(engine)
    assert warm.prompt_logits_digest == expected.prompt_logits_digest
    assert warm.tokens == expected.tokens
    assert warm.report.reused == reused
    engine.cache.check()


class LowRank(torch.nn.Module):
    """A layer with adapters, as people write them by hand."""

    def __init__(self, base, rank=4):
        super().__init__()
        self.base, self.active, self.scaling = base, None, {"a": 1.0, "b": 1.0}
        self.pairs = torch.nn.ModuleDict(
            {
                name: torch.nn.Sequential(
                    torch.nn.Linear(base.in_features, rank, bias=False),
                    torch.nn.Linear(rank, base.out_features, bias=False),
                )
                for name in "ab"
            }
        )

    def forward(self, hidden):
        output = self.base(hidden)
        if self.active is None:
            return output
        return output + self.scaling[self.active] * self.pairs[self.active](hidden)


def with_adapters(model):
    torch.manual_seed(5)
    for block in model.model.layers:
        block.mlp.gate_proj = LowRank(block.mlp.gate_proj)
    return model.eval()


def adapted(model):
    return [block.mlp.gate_proj for block in model.model.layers]


def layer(model):
    return model.model.layers[0].mlp.gate_proj


# Changes of weights and modules: what was computed before is gone for good


def load(model):
    model.load_state_dict(tiny_model("qwen3_5", seed=7).state_dict())


def assign(model):
    model.load_state_dict(tiny_model("qwen3_5", seed=7).state_dict(), assign=True)


def optimize(kind, **options):
    def step(model):
        optimizer = getattr(torch.optim, kind)(model.parameters(), lr=0.05, **options)
        model(input_ids=tiny_prompt(8), labels=tiny_prompt(8)).loss.backward()
        optimizer.step()

    return step


def write_one_number(model):
    with torch.no_grad():
        layer(model).weight[3, 5] += 0.5


def replace_parameter(model):
    layer(model).weight = torch.nn.Parameter(layer(model).weight.detach() * 1.5)


def point_data_elsewhere_and_back(model):
    # Twice, so that the freed memory of the first may well be used again.
    for _ in range(2):
        layer(model).weight.data = layer(model).weight.data * 1.5


def swap_tensors(model):
    other = torch.nn.Parameter(layer(model).weight.detach() * 1.5)
    torch.utils.swap_tensors(layer(model).weight, other)


def vector_to_parameters(model):
    with torch.no_grad():
        vector = torch.nn.utils.parameters_to_vector(layer(model).parameters())
        torch.nn.utils.vector_to_parameters(vector * 1.5, layer(model).parameters())


def replace_buffer(model):
    rotary = model.model.rotary_emb
    rotary.register_buffer("inv_freq", rotary.inv_freq * 0.5, persistent=False)


def replace_layer(model):
    model.model.layers[1] = tiny_model("qwen3_5", seed=7).model.layers[1]


def drop_layer(model):
    model.model.layers[0].mlp.act_fn = torch.nn.Identity()


def untie(model):
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() * 1.5)


def parametrized(model):
    class Half(torch.nn.Module):
        def forward(self, weight):
            return weight * 0.5

    parametrize.register_parametrization(layer(model), "weight", Half().eval())


def attach_by_hand(model):
    with_adapters(model)
    for each in adapted(model):
        each.active = "a"


def change_class(model):
    block = model.model.layers[0].mlp

    class Halved(type(block)):
        def forward(self, hidden):
            return super().forward(hidden) * 0.5

    block.__class__ = Halved


def prune_by_half(model):
    prune.l1_unstructured(layer(model), "weight", 0.5)


def resize_vocabulary(model):
    model.resize_token_embeddings(260, mean_resizing=False)


CHANGES_FOR_GOOD = [
    load, assign, write_one_number, replace_parameter, point_data_elsewhere_and_back, swap_tensors,
    vector_to_parameters, replace_buffer, replace_layer, drop_layer, untie, parametrized, attach_by_hand,
    resize_vocabulary, change_class, prune_by_half,
    pytest.param(optimize("SGD"), id="SGD"),
    pytest.param(optimize("SGD", fused=True), id="SGD fused"),
    pytest.param(optimize("AdamW", foreach=True), id="AdamW foreach"),
    pytest.param(optimize("AdamW", fused=True), id="AdamW fused"),
    pytest.param(optimize("Adafactor"), id="Adafactor"),
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES_FOR_GOOD)
def test_what_was_computed_with_other_weights_is_gone_for_good(change):
    model = tiny_model("qwen3_5")
    engine = open_engine(model)
    before = ask(engine)
    assert ask(engine).report.reused == HIT
    change(model)
    after = ask(engine)
    assert after.report.reused == 0
    assert after.prompt_logits_digest != before.prompt_logits_digest, "the change has to matter"
    assert after.prompt_logits_digest == cold(engine).prompt_logits_digest
    assert_answers_as_it_computes_now(engine, reused=HIT)


def test_merged_adapters_do_not_come_back_bit_for_bit_and_neither_do_their_states():
    pytest.importorskip("peft")
    model, wrapped = with_peft(tiny_model("qwen3_5"))
    engine = open_engine(model)
    ask(engine)
    wrapped.merge_adapter()
    assert_answers_as_it_computes_now(engine, reused=0)
    wrapped.unmerge_adapter()
    assert_answers_as_it_computes_now(engine, reused=0)


def test_states_of_weights_that_are_gone_take_no_budget():
    model = tiny_model("qwen3_5")
    engine = open_engine(model)
    other = engine.sibling(capacity="64MiB", policy="dense:64")
    ask(engine)
    ask(other)
    load(model)
    engine.generate(PROMPT[:10], max_new_tokens=1)
    assert engine.cache.stored_bytes == engine.cache.statistics().history_tokens - 10 == 0
    ask(other)
    assert other.cache.statistics().history_tokens == 200, "a sibling finds out by itself"


# Switches: the states of each setting are its own, and come back with it


@dataclass(frozen=True)
class Switch:
    name: str
    on: Callable[[Any], None]
    off: Callable[[Any], None]
    prepare: Callable[[Any], Any] = lambda model: model
    matters: bool = True


def with_peft(model):
    from peft import LoraConfig, get_peft_model

    def config():
        return LoraConfig(r=4, target_modules=["q_proj", "gate_proj"], init_lora_weights=False)

    torch.manual_seed(5)
    wrapped = get_peft_model(model, config(), adapter_name="one")
    wrapped.add_adapter("two", config())
    return model.eval(), wrapped


def each_adapter(name, value):
    return lambda model: [setattr(each, name, value) for each in adapted(model)]


def add_hook(model):
    UNDO["hook"] = layer(model).register_forward_hook(halve)


def add_hook_with_other_arguments(model):
    UNDO["hook"] = layer(model).register_forward_pre_hook(halve_arguments, with_kwargs=True)


def add_global_hook(model):
    UNDO["hook"] = torch.nn.modules.module.register_module_forward_hook(halve_linear)


def remove_hook(model):
    UNDO["hook"].remove()


def halve(module, arguments, output):
    return output * 0.5


def halve_linear(module, arguments, output):
    return output * 0.5 if type(module) is torch.nn.Linear else None


def halve_arguments(module, arguments, options):
    return tuple(each * 0.5 for each in arguments), options


def half_forward(module, hidden):
    return torch.nn.Linear.forward(module, hidden) * 0.5


def override_forward(model):
    layer(model).forward = MethodType(half_forward, layer(model))


def restore_forward(model):
    del layer(model).forward


def patch_class(model):
    kind = type(model.model.layers[0].mlp)
    UNDO["forward"] = upstream = kind.forward
    kind.forward = PATCHED.setdefault("forward", lambda self, hidden: upstream(self, hidden) * 0.5)


def unpatch_class(model):
    type(model.model.layers[0].mlp).forward = UNDO["forward"]


# Beside the model, where it is no change of it.
PATCHED: dict[str, Any] = {}
UNDO: dict[str, Any] = {}


def patch_file(model):
    from transformers.models.qwen3_5 import modeling_qwen3_5 as file

    UNDO["rotary"] = upstream = file.apply_rotary_pos_emb
    file.apply_rotary_pos_emb = PATCHED.setdefault(
        "rotary",
        lambda q, k, *args, **options: tuple(each * 0.9 for each in upstream(q, k, *args, **options)),
    )


def unpatch_file(model):
    from transformers.models.qwen3_5 import modeling_qwen3_5 as file

    file.apply_rotary_pos_emb = UNDO["rotary"]


class Scale:
    """State that several layers share in an object of its own."""

    def __init__(self):
        self.factor = 1.0


def with_shared_state(model):
    shared = Scale()
    for block in model.model.layers:
        block.mlp.shared = shared
        block.mlp.register_forward_hook(lambda module, _, output: output * module.shared.factor)
    return model


class Steering:
    """Hooks as people write them, which read what they need where they were made."""

    def __init__(self):
        self.factors, self.factor = {"gate": 1.0}, 1.0
        # Of the server, and of no concern to the model.
        self.num_requests = self.num_calls = 0

    def closure(self, model):
        factors = self.factors
        layer(model).register_forward_hook(lambda module, _, output: output * factors["gate"])
        return model

    def partial(self, model):
        def scale(factors, module, _, output):
            return output * factors["gate"]

        layer(model).register_forward_hook(functools.partial(scale, self.factors))
        return model

    def method(self, model):
        layer(model).register_forward_hook(self.scale)
        return model

    def scale(self, module, _, output):
        self.num_calls += 1
        return output * self.factor

    def switch(self, factor):
        self.factors["gate"] = self.factor = factor


def of_a_hook(kind):
    steering = Steering()
    return Switch(
        f"what a hook reads, by {kind}",
        lambda model: steering.switch(0.5),
        lambda model: steering.switch(1.0),
        getattr(steering, kind),
    )


def replace_code(model):
    forward = type(model.model.layers[0].mlp).forward
    UNDO["code"] = forward.__code__
    forward.__code__ = other_code


def restore_code(model):
    type(model.model.layers[0].mlp).forward.__code__ = UNDO["code"]


def half_mlp(self, x):
    return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x)) * 0.5


other_code = half_mlp.__code__

SWITCHES = [
    of_a_hook("closure"),
    of_a_hook("partial"),
    of_a_hook("method"),
    Switch("code that was reloaded in place", replace_code, restore_code),
    Switch("an adapter by hand", each_adapter("active", "b"), each_adapter("active", None), with_adapters),
    Switch(
        "a number in a dictionary",
        lambda model: adapted(model)[0].scaling.update(a=2.0),
        lambda model: adapted(model)[0].scaling.update(a=1.0),
        lambda model: (each_adapter("active", "a")(with_adapters(model)), model)[1],
    ),
    Switch(
        "an object's attribute",
        lambda model: setattr(model.model.layers[0].mlp.shared, "factor", 0.5),
        lambda model: setattr(model.model.layers[0].mlp.shared, "factor", 1.0),
        with_shared_state,
    ),
    Switch("a hook", add_hook, remove_hook),
    Switch("a hook on arguments", add_hook_with_other_arguments, remove_hook),
    Switch("a hook on all modules", add_global_hook, remove_hook),
    Switch("forward of an instance", override_forward, restore_forward),
    Switch("forward of a class", patch_class, unpatch_class),
    Switch("a function of the modeling file", patch_file, unpatch_file),
    Switch(
        "the attention implementation",
        lambda model: model.set_attn_implementation("eager"),
        lambda model: model.set_attn_implementation("sdpa"),
        matters=False,
    ),
    Switch(
        "a number that a layer reads",
        lambda model: setattr(model.model.norm, "eps", 0.5),
        lambda model: setattr(model.model.norm, "eps", 1e-6),
    ),
    Switch(
        "the configuration",
        lambda model: model.config.rope_parameters.update(rope_theta=5.0),
        lambda model: model.config.rope_parameters.update(rope_theta=10_000.0),
        matters=False,
    ),
    Switch(
        "precision of matrix products",
        lambda model: torch.set_float32_matmul_precision("medium"),
        lambda model: torch.set_float32_matmul_precision("highest"),
        matters=False,
    ),
    Switch(
        "deterministic algorithms",
        lambda model: torch.use_deterministic_algorithms(True),
        lambda model: torch.use_deterministic_algorithms(False),
        matters=False,
    ),
    Switch(
        "oneDNN",
        lambda model: torch._C._set_mkldnn_enabled(False),
        lambda model: torch._C._set_mkldnn_enabled(True),
        matters=False,
    ),
    Switch(
        "attention kernels",
        lambda model: torch.backends.cuda.enable_flash_sdp(False),
        lambda model: torch.backends.cuda.enable_flash_sdp(True),
        matters=False,
    ),
    Switch(
        "threads",
        lambda model: torch.set_num_threads(2),
        lambda model: torch.set_num_threads(1),
        matters=False,
    ),
    Switch(
        "default dtype",
        lambda model: torch.set_default_dtype(torch.float64),
        lambda model: torch.set_default_dtype(torch.float32),
        matters=False,
    ),
]


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: switch.name)
def test_a_setting_that_is_switched_has_states_of_its_own_and_finds_them_again(switch):
    model = switch.prepare(tiny_model("qwen3_5"))
    engine = open_engine(model)
    before = ask(engine)
    switch.on(model)
    try:
        after = ask(engine)
        assert after.report.reused == 0
        assert (after.prompt_logits_digest != before.prompt_logits_digest) or not switch.matters
        assert_answers_as_it_computes_now(engine, reused=HIT)
    finally:
        switch.off(model)
    assert_answers_as_it_computes_now(engine, reused=HIT)
    assert ask(engine).prompt_logits_digest == before.prompt_logits_digest


def test_adapters_of_peft_have_states_of_their_own_and_find_them_again():
    pytest.importorskip("peft")
    model, wrapped = with_peft(tiny_model("qwen3_5"))
    engine = open_engine(model)
    ask(engine)
    wrapped.set_adapter("two")
    assert_answers_as_it_computes_now(engine, reused=0)
    with wrapped.disable_adapter():
        assert_answers_as_it_computes_now(engine, reused=0)
    assert_answers_as_it_computes_now(engine, reused=HIT)
    wrapped.set_adapter("one")
    assert_answers_as_it_computes_now(engine, reused=HIT)


def test_an_adapter_attached_behind_the_engine_needs_no_more_than_the_next_request():
    pytest.importorskip("peft")
    model = tiny_model("qwen3_5")
    engine = open_engine(model)
    ask(engine)
    _, wrapped = with_peft(model)
    assert_answers_as_it_computes_now(engine, reused=0)
    wrapped.unload()
    assert_answers_as_it_computes_now(engine, reused=0)


def test_what_changes_no_result_costs_no_states(tmp_path):
    model = tiny_model("qwen3_5")
    engine = open_engine(model)
    ask(engine)
    model.requires_grad_(False)
    model.train()
    model.eval()
    model.save_pretrained(tmp_path)
    model.generation_config.temperature = 0.5
    model(input_ids=tiny_prompt(8), labels=tiny_prompt(8))
    model.config.name_or_path = "elsewhere"
    copy.deepcopy(model)
    assert_answers_as_it_computes_now(engine, reused=HIT)


def test_a_tensor_in_a_plain_list_is_within_reach():
    model = tiny_model("qwen3_5")
    model.model.layers[0].mlp.extras = [torch.ones(1)]
    model.model.layers[0].mlp.register_forward_hook(lambda module, _, output: output * module.extras[0])
    engine = open_engine(model)
    ask(engine)
    assert_answers_as_it_computes_now(engine, reused=HIT)
    model.model.layers[0].mlp.extras[0].mul_(0.5)
    assert_answers_as_it_computes_now(engine, reused=0)
    model.model.layers[0].mlp.extras[0] = torch.ones(1)
    assert_answers_as_it_computes_now(engine, reused=0)


@pytest.mark.parametrize("numerics", ["strict", "fast"])
def test_a_recurrence_that_was_replaced_and_loses_its_state_is_refused_as_at_opening(numerics, monkeypatch):
    model = tiny_model("mamba2")
    engine = open_engine(model, numerics=numerics)
    file = sys.modules[type(model).__module__]
    upstream = file.mamba2_chunk_scan

    @functools.wraps(upstream)
    def from_zeros(*args, initial_states=None, **options):
        return upstream(*args, **options)

    ask(engine)
    monkeypatch.setattr(file, "mamba2_chunk_scan", from_zeros)
    with pytest.raises(UnsupportedModelError, match=r"does not continue from the state.*undo that, or open"):
        ask(engine)
    with pytest.raises(UnsupportedModelError, match="does not continue from the state"):
        open_engine(model)
    monkeypatch.undo()
    assert ask(engine).report.reused


def test_a_forward_of_its_own_that_drops_the_cache_is_refused_as_at_opening():
    model = tiny_model("mamba2")
    engine = open_engine(model)
    mixer = model.backbone.layers[1].mixer
    ask(engine)
    mixer.forward = lambda hidden_states, cache=None, **options: type(mixer).forward(mixer, hidden_states)
    with pytest.raises(UnsupportedModelError, match="undo that, or open it again"):
        ask(engine)
    del mixer.forward
    assert ask(engine).report.reused == HIT


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_layers_quantized_in_place_are_probed_again_and_refused_as_they_would_be_at_opening():
    model = tiny_model("qwen3_5")
    engine = open_engine(model)
    ask(engine)
    torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, inplace=True)
    for _ in range(2):
        with pytest.raises(UnsupportedModelError, match="open it again"):
            ask(engine)
    engine.cache.check()


@pytest.mark.parametrize("numerics", ["strict", "fast"])
@pytest.mark.parametrize("kind", [HangingScales, ScalesBeside])
def test_scales_of_quantised_weights_are_watched_wherever_they_are(kind, numerics):
    model = pack(tiny_model("qwen3_5"), kind)
    engine = open_engine(model, numerics=numerics)
    ask(engine)
    assert ask(engine).report.reused
    model.model.layers[0].mlp.down_proj.scale.mul_(4)
    assert_answers_as_it_computes_now(engine, reused=0)


class Scaled(torch.nn.Module):
    """Scales what a layer gives by a tensor that is no buffer, as a vector to steer by is kept."""

    def __init__(self, base, hold):
        super().__init__()
        self.base, self.held = base, hold(torch.ones(64))

    def forward(self, hidden):
        return self.base(hidden) * scale_of(self.held)


def scale_of(held):
    return held[0] if isinstance(held, list) else getattr(held, "scale", held)


HOLDERS = {
    "an attribute": lambda scale: scale,
    "an object": lambda scale: SimpleNamespace(scale=scale),
    "a list": lambda scale: [scale],
    "a list of numbers": lambda scale: [1.0],
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_tensor_takes_the_place_of_another(holder):
    model = tiny_model("qwen3_5")
    layer = model.model.layers[1]
    scaled = layer.mlp = Scaled(layer.mlp, HOLDERS[holder])
    engine = open_engine(model)
    ask(engine)
    for other in (torch.full((64,), 2.0), torch.tensor(3.0)):
        held = scaled.held
        if isinstance(held, list):
            held[0] = other
        elif isinstance(held, SimpleNamespace):
            held.scale = other
        else:
            scaled.held = other
        assert_answers_as_it_computes_now(engine, reused=0)
        assert ask(engine).report.reused == HIT


def test_what_stands_beside_such_scales_is_watched_too():
    model = pack(tiny_model("qwen3_5"), HangingScales)
    engine = open_engine(model)
    ask(engine)
    quantised = model.model.layers[0].mlp.down_proj.weight.quantised
    quantised.block = 4
    assert_answers_as_it_computes_now(engine, reused=0)
    quantised.block = 1
    assert_answers_as_it_computes_now(engine, reused=HIT)
    quantised.scale = quantised.scale * 4
    assert_answers_as_it_computes_now(engine, reused=0)


def test_a_model_compiled_in_place_is_answered_as_it_computes():
    model = tiny_model("qwen3_5")
    engine = open_engine(model)
    ask(engine)
    model.compile(backend="eager")
    assert_answers_as_it_computes_now(engine, reused=0)


def test_a_server_whose_method_is_a_hook_may_count_what_it_likes():
    model, steering = tiny_model("qwen3_5"), Steering()
    engine = open_engine(model)
    steering.method(model)
    ask(engine)
    for _ in engine.stream(PROMPT, max_new_tokens=3, ignore_end_token=True):
        steering.num_requests += 1
    assert steering.num_calls > steering.num_requests == 3
    assert_answers_as_it_computes_now(engine, reused=HIT)


# What cannot go on as it was


def test_training_mode_is_refused_with_the_remedy_and_nothing_is_stored():
    model = tiny_model("qwen3_5")
    engine = open_engine(model)
    ask(engine)
    for part in (model, model.model.layers[2].mlp):
        part.train()
        with pytest.raises(ConfigurationError, match=r"training mode.*model\.eval\(\)"):
            engine.generate(tiny_prompt(100, seed=9)[0].numpy(), max_new_tokens=1)
        model.eval()
    assert_answers_as_it_computes_now(engine, reused=HIT)
    assert engine.cache.statistics().num_requests == 3


def test_another_type_is_answered_without_storing_and_back_again_it_stores(caplog):
    model = tiny_model("qwen3_5")
    engine = open_engine(model)
    ask(engine)
    model.to(torch.bfloat16)
    for _ in range(2):
        assert_answers_as_it_computes_now(engine, reused=0)
    assert engine.cache.stored_bytes == 0
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "open the model again" in warning.message
    model.half().to(torch.float32)
    ask(engine)
    assert_answers_as_it_computes_now(engine, reused=HIT)


def test_autocast_is_another_way_of_computing():
    model = tiny_model("qwen3_5")
    engine = open_engine(model)
    before = ask(engine)
    with torch.autocast("cpu", torch.bfloat16):
        assert ask(engine).prompt_logits_digest != before.prompt_logits_digest
        assert_answers_as_it_computes_now(engine, reused=0)
    assert_answers_as_it_computes_now(engine, reused=HIT)


def delete_layer(model):
    del model.model.layers[1].mlp.up_proj


def to_meta(model):
    model.to("meta")


def half_of_it_in_another_type(model):
    model.model.layers[1].to(torch.float64)


@pytest.mark.parametrize("damage", [delete_layer, to_meta, half_of_it_in_another_type])
def test_a_model_that_cannot_run_any_more_is_a_clear_error(damage):
    model = tiny_model("qwen3_5")
    engine = open_engine(model)
    ask(engine)
    damage(model)
    for _ in range(2):
        with pytest.raises(MilepostError, match="open it again"):
            ask(engine)
    engine.cache.check()


# Changes while a request is running


@pytest.mark.parametrize("num_turns", [0, 1, 2, 5])
def test_a_change_in_the_middle_of_a_request_ends_it_and_stores_nothing_under_either_name(num_turns):
    model = with_adapters(tiny_model("qwen3_5"))
    engine = open_engine(model)
    generation = engine.submit(PROMPT, max_new_tokens=4, ignore_end_token=True)
    for _ in range(num_turns):
        engine.step()
    each_adapter("active", "a")(model)
    if num_turns == 0:
        engine.step()
    while not generation.is_done:
        engine.step()
    if num_turns == 0:
        assert generation.completion().tokens == ask(engine, max_new_tokens=4).tokens
        return
    with pytest.raises(ModelChangedError, match="ask again"):
        generation.completion()
    assert_answers_as_it_computes_now(engine, reused=0)
    each_adapter("active", None)(model)
    assert_answers_as_it_computes_now(engine, reused=0 if num_turns < 4 else HIT)


def test_a_change_between_two_tokens_of_a_stream_ends_it():
    model = tiny_model("qwen3_5")
    engine = open_engine(model)
    stream = engine.stream(PROMPT, max_new_tokens=8, ignore_end_token=True)
    tokens = [next(stream).token for _ in range(3)]
    write_one_number(model)
    with pytest.raises(ModelChangedError):
        next(stream)
    assert len(tokens) == 3
    assert_answers_as_it_computes_now(engine, reused=0)


def test_a_stream_goes_on_where_another_adapter_had_a_turn_in_between():
    model = with_adapters(tiny_model("qwen3_5"))
    engine = open_engine(model)
    expected = ask(engine, max_new_tokens=6).tokens
    tokens = []
    for event in engine.stream(PROMPT, max_new_tokens=6, ignore_end_token=True):
        tokens.append(event.token)
        each_adapter("active", "b")(model)
        answer = engine.generate(PROMPT[:50], max_new_tokens=1) if len(tokens) > 5 else None
        each_adapter("active", None)(model)
        assert answer is None or answer.report.num_tokens == 50
    assert tuple(tokens) == expected


def test_a_change_by_another_thread_during_a_call_is_found_before_anything_is_stored_or_handed_out(
    monkeypatch,
):
    model = tiny_model("qwen3_5")
    engine = open_engine(model)
    upstream = engine.driver.advance
    for turn in (2, 3):
        calls = []

        def advance(live, tokens, calls=calls, turn=turn):
            calls.append(tokens)
            logits = upstream(live, tokens)
            if len(calls) == turn:
                write_one_number(model)
            return logits

        monkeypatch.setattr(engine.driver, "advance", advance)
        with pytest.raises(ModelChangedError):
            ask(engine, max_new_tokens=4)
        monkeypatch.undo()
        assert_answers_as_it_computes_now(engine, reused=0)


# What nothing can see, and the net under it


def write_past_every_counter(model):
    for parameter in model.parameters():
        parameter.data.mul_(1.01)


def test_without_a_look_states_of_other_weights_would_be_served(monkeypatch):
    model = tiny_model("qwen3_5")
    engine = open_engine(model)
    identity = engine._served.admission.identify()
    ask(engine)
    load(model)
    monkeypatch.setattr(ModelWatch, "look", lambda self: identity)
    with pytest.raises(AssertionError):
        assert_answers_as_it_computes_now(engine, reused=HIT)


def test_what_is_written_past_every_counter_is_served_wrongly_until_invalidate_is_called():
    model = tiny_model("qwen3_5")
    engine = open_engine(model)
    ask(engine)
    write_past_every_counter(model)
    with pytest.raises(AssertionError):
        assert_answers_as_it_computes_now(engine, reused=HIT)
    engine.invalidate()
    assert engine.cache.stored_bytes == 0
    assert_answers_as_it_computes_now(engine, reused=0)
    assert_answers_as_it_computes_now(engine, reused=HIT)


# Left as they were


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_a_plain_forward_call_is_no_change_in_any_family(family):
    model = tiny_model(family)
    engine = open_engine(model, segment_tokens=None, policy="tail+junction")
    # Some of the last tokens stand for images.
    prompt = tiny_prompt(600, seed=3)[0].numpy() % 200 + 3
    first = engine.generate(prompt, max_new_tokens=2, ignore_end_token=True)
    second = engine.generate(prompt, max_new_tokens=2, ignore_end_token=True)
    assert second.report.reused == 512
    assert second.prompt_logits_digest == first.prompt_logits_digest


def pickled(model):
    return pickle.loads(pickle.dumps(model))


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("family", ["qwen3_5", "mamba", "recurrent_gemma", "minimax"])
@pytest.mark.parametrize("copied", [copy.deepcopy, pickled, saved])
def test_an_opened_model_is_copied_pickled_and_saved_as_before(family, copied):
    model = tiny_model(family)
    engine = open_engine(model)
    answer = ask(engine)
    other = open_engine(copied(model))
    assert ask(other).prompt_logits_digest == answer.prompt_logits_digest
    assert ask(other).report.reused == HIT
    assert_answers_as_it_computes_now(engine, reused=HIT)


def test_two_engines_on_one_model_look_for_themselves():
    model = tiny_model("qwen3_5")
    one, other = open_engine(model), open_engine(model)
    for engine in (one, other):
        ask(engine)
        assert_answers_as_it_computes_now(engine, reused=HIT)
    load(model)
    for engine in (one, other):
        assert_answers_as_it_computes_now(engine, reused=0)


def test_weights_made_in_inference_mode_are_compared_by_value():
    with torch.inference_mode():
        model = tiny_model("qwen3_5")
    engine = open_engine(model)
    ask(engine)
    assert_answers_as_it_computes_now(engine, reused=HIT)
    with torch.inference_mode():
        layer(model).weight.mul_(1.5)
    assert_answers_as_it_computes_now(engine, reused=0)
