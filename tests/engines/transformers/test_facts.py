"""A model's facts are the same in the next process, and others once anything is that its bits hang on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from packed_weights import HangingScales, ScalesBeside, pack
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.models.qwen3_5 import modeling_qwen3_5

from families import tiny_model, tiny_prompt
from milepost.engines.opening import serve_model
from milepost.engines.transformers.code_digest import code_digest
from milepost.engines.transformers.facts import whole_weights_digest as digest_of
from milepost.engines.transformers.watch.inventory import take_inventory
from milepost.errors import ConfigurationError, ModelChangedError

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("models") / "qwen3_5"
    tiny_model("qwen3_5").save_pretrained(path)
    return path


def whole_weights_digest(model):
    return digest_of(model, take_inventory(model))


def served_of(folder, **options):
    given = {"numerics": "strict", "segment_tokens": 64, "tokenizer": None, "dtype": "auto", "device": "cpu"}
    return serve_model(folder, **given | {"revision": None} | options)


def facts_of(folder, **options):
    served = served_of(folder, **options)
    try:
        return served.persistent_facts()
    finally:
        served.driver.release()


@pytest.fixture(scope="module")
def facts(folder):
    return facts_of(folder)


def differing(one, other) -> set[str]:
    return {
        name
        for name, value in {**one.facts, **other.facts}.items()
        if one.facts.get(name) != value or other.facts.get(name) != value
    }


IN_ANOTHER_PROCESS = """
import json, sys, torch
torch.set_num_threads(1)
sys.path[:0] = json.loads(sys.argv[2])
from test_facts import facts_of
print(json.dumps(dict(facts_of(sys.argv[1]).facts)))
"""


def test_another_process_finds_the_same_facts(folder, facts):
    paths = json.dumps([str(Path(__file__).parent), *sys.path])
    told = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS, folder, paths],
        capture_output=True,
        check=True,
        env={"PYTHONHASHSEED": "7", "HF_HUB_OFFLINE": "1"},
    )
    assert json.loads(told.stdout.splitlines()[-1]) == dict(facts.facts)


def test_one_bit_of_one_weight_is_another_model(facts, tmp_path):
    tiny_model("qwen3_5").save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    assert facts_of(tmp_path).digest == facts.digest
    weights = load_file(path)
    name = sorted(weights)[-1]
    weights[name].view(torch.uint8).view(-1)[-1] ^= 1
    save_file(weights, path, metadata={"format": "pt"})
    assert differing(facts_of(tmp_path), facts) == {"weights"}


@pytest.mark.parametrize("kind", [HangingScales, ScalesBeside])
def test_the_scales_of_quantised_weights_are_part_of_them(kind):
    model = pack(tiny_model("qwen3_5"), kind)
    digest = whole_weights_digest(model)
    assert whole_weights_digest(pack(tiny_model("qwen3_5"), kind)) == digest
    # Its codes are those of the model.
    model.model.layers[0].mlp.down_proj.scale.mul_(4)
    assert whole_weights_digest(model) != digest


def test_so_is_what_stands_beside_them():
    model, digests = pack(tiny_model("qwen3_5"), HangingScales), set()
    for block in (1, 2):
        model.model.layers[0].mlp.down_proj.weight.quantised.block = block
        digests.add(whole_weights_digest(model))
    assert len(digests) == 2


def change_the_configuration(path):
    config = json.loads((path / "config.json").read_text())
    config["rms_norm_eps"] = 1e-5
    (path / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"numerics": "fast"}, {"numerics", "cuts"}),
        ({"segment_tokens": 128}, {"segment_tokens", "cuts"}),
        ({"dtype": "bfloat16"}, {"dtype", "weights", "config"}),
    ],
    ids=["numerics", "segment_tokens", "dtype"],
)
def test_options_that_change_states_change_the_facts(folder, facts, options, expected):
    assert expected <= differing(facts, facts_of(folder, **options))


def test_the_configuration_is_one_of_the_facts(facts, tmp_path):
    tiny_model("qwen3_5").save_pretrained(tmp_path)
    change_the_configuration(tmp_path)
    assert differing(facts_of(tmp_path), facts) == {"config"}


def test_torchs_switches_and_variables_are_among_the_facts(folder, facts, monkeypatch):
    torch.set_num_threads(2)
    try:
        assert differing(facts, facts_of(folder)) == {"torch's threads"}
    finally:
        torch.set_num_threads(1)
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert differing(facts, facts_of(folder)) == {"MKL_CBWR"}


def test_code_that_was_put_in_place_is_another_model(folder, facts, monkeypatch):
    norm = modeling_qwen3_5.Qwen3_5RMSNorm

    def forward(self, hidden_states):
        return self._norm(hidden_states.float()).type_as(hidden_states)

    monkeypatch.setattr(norm, "forward", forward)
    assert differing(facts, facts_of(folder)) == {"code"}
    monkeypatch.undo()
    monkeypatch.setattr(modeling_qwen3_5, "l2norm", lambda x, dim=-1, eps=1e-6: x)
    assert differing(facts, facts_of(folder)) == {"code"}
    monkeypatch.undo()
    assert differing(facts, facts_of(folder)) == set()


def test_two_closures_of_one_function_are_two():
    def scaled_by(factor):
        return lambda self, hidden_states: hidden_states * factor

    digests = set()
    for factor in (1.0, 2.0):
        kind = type("Scale", (torch.nn.Module,), {"forward": scaled_by(factor), "__module__": "here"})
        digests.add(code_digest(kind()))
    assert len(digests) == 2


def test_a_model_in_memory_has_no_facts(folder):
    served = served_of(tiny_model("qwen3_5"), device=None)
    with pytest.raises(ConfigurationError, match="save it, and open the folder"):
        served.persistent_facts()
    served.driver.release()


def written(model):
    with torch.no_grad():
        next(model.parameters()).mul_(2)


def hooked(model):
    model.model.layers[0].register_forward_hook(lambda *_: None)


@pytest.mark.parametrize("change", [written, hooked])
def test_a_model_that_was_changed_has_none_either(folder, change):
    served = served_of(folder)
    opened = served.admission.identify()
    assert served.admission.is_as_opened(opened)
    change(served.driver.model)
    assert not served.admission.is_as_opened(served.admission.identify())
    assert served.admission.is_as_opened(opened)
    with pytest.raises(ModelChangedError):
        served.persistent_facts()
    served.driver.release()


def test_a_switch_that_is_set_back_is_the_model_as_it_was_opened(folder):
    served = served_of(folder)
    served.driver.model.config.rms_norm_eps, before = 1e-3, served.driver.model.config.rms_norm_eps
    assert not served.admission.is_as_opened(served.admission.identify())
    served.driver.model.config.rms_norm_eps = before
    assert served.admission.is_as_opened(served.admission.identify())
    served.driver.release()


def test_what_is_said_to_be_changed_is_not_as_opened(folder):
    served = served_of(folder)
    served.admission.invalidate()
    assert not served.admission.is_as_opened(served.admission.identify())
    served.driver.release()


# What saving and loading does to a model, and what it does not.


def logits_of(model):
    with torch.inference_mode():
        return model(tiny_prompt(100)).logits


def saved_and_loaded(model, path):
    model.save_pretrained(path)
    return AutoModelForCausalLM.from_pretrained(path, dtype="auto").eval()


@pytest.mark.parametrize("family", ["qwen3_5", "falcon_h1", "lfm2", "qwen3"])
def test_a_cast_models_copy_computes_other_bits_because_of_buffers_that_are_not_saved(family, tmp_path):
    cast = tiny_model(family, torch.bfloat16)
    loaded = saved_and_loaded(cast, tmp_path)
    parameters = dict(cast.named_parameters())
    assert all(torch.equal(each, parameters[name]) for name, each in loaded.named_parameters())
    assert not torch.equal(logits_of(cast), logits_of(loaded))
    assert whole_weights_digest(cast) != whole_weights_digest(loaded)

    buffers = dict(cast.named_buffers())
    for name, each in loaded.named_buffers():
        module, _, last = name.rpartition(".")
        loaded.get_submodule(module)._buffers[last] = buffers[name].to(each.device)
    assert torch.equal(logits_of(cast), logits_of(loaded))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("family", ["qwen3_5", "falcon_h1", "kimi_linear", "lfm2_moe"])
def test_where_weights_lie_changes_no_bit_and_is_told_apart_all_the_same(family, dtype):
    model = tiny_model(family, dtype)
    before, digest = logits_of(model), whole_weights_digest(model)
    assert whole_weights_digest(tiny_model(family, dtype)) == digest
    for offset in (8, 40):
        for parameter in model.parameters():
            parameter.data = at_offset(parameter.data, offset)
        assert torch.equal(logits_of(model), before)
        assert whole_weights_digest(model) != digest
    # The control: another number shows in the logits.
    next(model.parameters()).data += 1e-2
    assert not torch.equal(logits_of(model), before)


def at_offset(tensor, offset):
    """Copy ``tensor`` to where it begins ``offset`` bytes after a multiple of 64."""
    memory = torch.empty(tensor.nbytes + 128, dtype=torch.uint8)
    start = -memory.data_ptr() % 64 + offset
    moved = memory[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
    return moved.copy_(tensor)
