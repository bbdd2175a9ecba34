"""Models as people hand them over: wrapped ones are unwrapped and answer as their wrapper does; whatever is
no such model is named for what it is, with what to give instead."""

import json
import logging

import peft
import pytest
import torch
from accelerate import cpu_offload
from resuming import prompt
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from families import tiny_config, tiny_model
from milepost.engines.engine import Engine
from milepost.errors import ConfigurationError, MilepostError, ModelLoadError, UnsupportedModelError

torch.set_num_threads(1)
# What torch warns its own parts of, on their first use.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")


def opened(model):
    return Engine.open(model, capacity="64MiB", segment_tokens=64, policy="dense:64")


def answers(model):
    """Tokens of a cold and of a warm answer, and what the warm one reused."""
    with opened(model) as engine:
        cold, warm = (engine.generate(prompt(150).numpy(), max_new_tokens=6) for _ in range(2))
    assert cold.prompt_logits_digest == warm.prompt_logits_digest
    return cold.tokens, warm.report.reused


def by_its_own_generate(model):
    tokens = prompt(150)[None]
    generated = model.generate(input_ids=tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=6)
    return tuple(token for token in generated[0, 150:].tolist() if token != 2)


def with_lora(model=None, **options):
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "in_proj_qkv"], init_lora_weights=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return peft.get_peft_model(model or tiny_model("qwen3_5"), config, **options).eval()


def compiled_in_place():
    model = tiny_model("qwen3_5")
    model.compile(backend="eager")
    return model


WRAPPED = {
    "torch.compile(model)": lambda: torch.compile(tiny_model("qwen3_5")),
    "model.compile()": compiled_in_place,
    "a PEFT model": with_lora,
    "a mixed PEFT model": lambda: with_lora(mixed=True),
    "a compiled PEFT model": lambda: torch.compile(with_lora()),
    "DataParallel": lambda: torch.nn.DataParallel(tiny_model("qwen3_5")),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_wrapped_model_answers_as_the_model_inside_it(name):
    plain = with_lora() if "PEFT" in name else tiny_model("qwen3_5")

    tokens, reused = answers(WRAPPED[name]())

    assert tokens == by_its_own_generate(plain)
    assert reused == 128


def test_an_adapter_is_active_and_the_wrapper_stays_as_it_is():
    wrapper = with_lora()
    before = {name: weight.clone() for name, weight in wrapper.state_dict().items()}

    tokens, _ = answers(wrapper)

    assert tokens != answers(tiny_model("qwen3_5"))[0], "the adapter changes the answer"
    assert tokens == by_its_own_generate(wrapper)
    assert wrapper.state_dict().keys() == before.keys()
    assert all(torch.equal(weight, before[name]) for name, weight in wrapper.state_dict().items())


@pytest.mark.parametrize(
    "wrap", [torch.compile, torch.nn.DataParallel], ids=["torch.compile", "DataParallel"]
)
def test_that_a_wrapper_is_not_run_is_said_once(wrap, caplog):
    with caplog.at_level(logging.WARNING):
        opened(wrap(tiny_model("qwen3_5")))

    assert len([record for record in caplog.records if "the model inside is run" in record.getMessage()]) == 1


def test_a_model_in_a_wrapper_is_put_in_evaluation_mode():
    wrapper = with_lora().train()

    assert not opened(wrapper).driver.model.training
    assert not wrapper.training


class _WithSomethingOfItsOwn(peft.PeftModel):
    """A wrapper as a later version might bring one; it lives where PEFT's do."""

    __module__ = "peft.later"

    def forward(self, *args, **options):
        outputs = super().forward(*args, **options)
        outputs.logits = outputs.logits * 1.5
        return outputs


ADAPTERS = {
    "prompt tuning": (
        lambda: peft.PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"),
        r"PEFT adapter 'default' \(PROMPT_TUNING\) puts virtual tokens before the prompt",
    ),
    "prefix tuning": (
        lambda: peft.PrefixTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"),
        r"PEFT adapter 'default' \(PREFIX_TUNING\) .* or keys and values of its own into the cache",
    ),
    "an adapter that waits for a token": (
        lambda: peft.LoraConfig(
            r=4, target_modules=["q_proj"], alora_invocation_tokens=[5], task_type="CAUSAL_LM"
        ),
        r"\(LORA\) begins to act at an invocation token inside the prompt",
    ),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_that_the_model_inside_knows_nothing_of_is_refused(name):
    make, says = ADAPTERS[name]
    wrapper = peft.get_peft_model(tiny_model("qwen3"), make()).eval()

    with pytest.raises(UnsupportedModelError, match=says):
        opened(wrapper)


def test_a_wrapper_that_computes_something_else_is_refused():
    wrapper = _WithSomethingOfItsOwn(tiny_model("qwen3"), peft.LoraConfig(r=4, target_modules=["q_proj"]))

    with pytest.raises(UnsupportedModelError, match="computes other logits than the model inside it"):
        opened(wrapper.eval())


def test_weights_that_are_not_there_are_refused():
    with pytest.raises(UnsupportedModelError, match=r"qwen3_5_text: \d+ of its weights, such as .* meta"):
        opened(tiny_model("qwen3_5").to("meta"))


def test_weights_that_are_fetched_when_they_are_needed_are_served():
    model = tiny_model("qwen3_5")
    expected = by_its_own_generate(model)
    model.model.layers[1] = cpu_offload(model.model.layers[1], execution_device="cpu")
    assert any(weight.is_meta for weight in model.parameters())

    assert answers(model) == (expected, 128)


@pytest.mark.filterwarnings("ignore:.*deprecated.*")
def test_activations_quantised_by_the_call_are_the_reason_given():
    model = torch.ao.quantization.quantize_dynamic(
        tiny_model("qwen3_5"), {torch.nn.Linear}, dtype=torch.qint8
    )

    with pytest.raises(UnsupportedModelError, match=r"depends on the company, .*quantise weights alone"):
        opened(model)


def of_a_kind_that_fails(model, failing):
    """Have a layer fail in a way of its own before it computes anything."""
    layer = model.model.layers[0].mlp.down_proj
    layer.register_forward_pre_hook(failing)
    return model


def needs_counters(module, arguments):
    # As quanto's weights of four bits do.
    if torch.is_inference_mode_enabled():
        raise RuntimeError("Cannot set version_counter for inference tensor")


def knows_no_such_operator(module, arguments):
    raise NotImplementedError("no such operator")


@pytest.mark.parametrize(
    ("failing", "says"),
    [
        (needs_counters, r"fails in torch\.inference_mode.*runs: quantise.*: RuntimeError: Cannot set"),
        (knows_no_such_operator, "forward call fails, without a cache as well: NotImplementedError: no such"),
    ],
)
def test_a_call_that_fails_without_a_cache_too_is_not_said_to_fail_on_it(failing, says):
    with pytest.raises(UnsupportedModelError, match=says):
        opened(of_a_kind_that_fails(tiny_model("qwen3_5"), failing))


def test_weights_quantised_on_their_own_are_served():
    class Int8Linear(torch.nn.Module):
        """What quantisers of weights do: rounded weights, a scale a row, plain activations."""

        def __init__(self, linear):
            super().__init__()
            scale = linear.weight.abs().amax(-1, keepdim=True) / 127
            self.register_buffer("scale", scale)
            self.register_buffer("rounded", (linear.weight / scale).round().to(torch.int8))

        def forward(self, inputs):
            return torch.nn.functional.linear(inputs, self.rounded.float() * self.scale)

    model = tiny_model("qwen3_5")
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Linear):
                setattr(module, name, Int8Linear(child))

    assert answers(model) == (by_its_own_generate(model), 128)


def word_tokenizer():
    from tokenizers import Tokenizer, models

    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"[UNK]": 0})))


def text_pipeline():
    from transformers import TextGenerationPipeline

    tokenizer = word_tokenizer()
    return TextGenerationPipeline(model=tiny_model("qwen3"), tokenizer=tokenizer)


NO_MODELS = {
    "a tokenizer": (word_tokenizer, r"model is a tokenizer \(.*, and it as tokenizer="),
    "a pipeline": (text_pipeline, r"a TextGenerationPipeline with a model inside; give its \.model"),
    "a configuration": (lambda: tiny_config("qwen3"), r"a configuration \(Qwen3Config\) without weights"),
    "a state dict": (lambda: tiny_model("qwen3").state_dict(), "a OrderedDict of weights; load them"),
    "a class": (lambda: type(tiny_model("qwen3")), "the class Qwen3ForCausalLM itself"),
    "a module": (lambda: torch.nn.Linear(2, 2), "a Linear, which is no model of transformers"),
    "None": (lambda: None, r"model is None \(NoneType\); give a folder, a hub id or a causal"),
    "a number": (lambda: 5, r"model is 5 \(int\)"),
    "a list": (lambda: [tiny_model("qwen3")], r"model is \[Qwen3ForCausalLM[\s\S]* \(list\)"),
    "bytes": (lambda: b"/models/qwen", r"model is b'/models/qwen' \(bytes\)"),
    "nothing": (lambda: "", "model is an empty string"),
}


@pytest.mark.parametrize("name", NO_MODELS)
def test_what_is_no_model_is_named_with_what_to_give(name):
    make, says = NO_MODELS[name]
    with pytest.raises(ConfigurationError, match=says):
        opened(make())


OTHER_MODELS = {
    "an encoder": lambda: BertForMaskedLM(
        BertConfig(
            vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
        )
    ),
    "an encoder-decoder": lambda: T5ForConditionalGeneration(
        T5Config(vocab_size=16, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    ),
    "a model without a head": lambda: tiny_model("qwen3").model,
    "a classifier": lambda: AutoModelForSequenceClassification.from_config(tiny_config("qwen3")),
}


@pytest.mark.parametrize("name", OTHER_MODELS)
def test_a_model_of_another_kind_is_refused_by_name(name):
    model = OTHER_MODELS[name]()
    with pytest.raises(UnsupportedModelError, match=model.config.model_type):
        opened(model)


def test_a_folder_with_an_adapter_alone_says_so(tmp_path):
    with_lora().save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "some/model"}))

    with pytest.raises(ModelLoadError, match=r"an adapter for some/model and no model; load it with peft's"):
        opened(tmp_path)


@pytest.mark.parametrize("name", ["model.bin", "model.safetensors"])
def test_a_file_is_no_folder(tmp_path, name):
    (tmp_path / name).write_bytes(b"1234")

    with pytest.raises(ModelLoadError, match=rf"{name} is a file.*; give the folder"):
        opened(tmp_path / name)


def test_whatever_is_wrong_is_one_of_our_errors():
    for make, _ in NO_MODELS.values():
        with pytest.raises(MilepostError):
            opened(make())
