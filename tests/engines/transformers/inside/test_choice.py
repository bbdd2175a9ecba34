"""Where states come from is measured on the model that is opened, and said."""

import inspect
import logging
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from resuming import tiny_driver
from transformers.integrations.hub_kernels import use_kernel_func_from_hub_with_fallback

from families import ALL_FAMILIES, tiny_model
from milepost import Engine
from milepost.engines.transformers import admission
from milepost.engines.transformers.families import driver_for
from milepost.engines.transformers.inside import recording as recording_module
from milepost.engines.transformers.inside.choice import choose_capture
from milepost.engines.transformers.inside.recording import Recording
from milepost.errors import ModelChangedError, UnsupportedModelError

NOT_KNOWN = {"zaya", "xlstm", "rwkv"}


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_a_family_whose_states_are_known_is_captured_inside_a_call(family):
    choice = choose_capture(tiny_driver(family, torch.float32))
    assert choice.is_inside == (family not in NOT_KNOWN), str(choice)


def test_where_a_window_is_filled_otherwise_before_the_first_token_a_call_ends_early():
    """What qwen4_exp holds of token ids after the first one begins with the end of text, and not with 0."""
    choice = choose_capture(tiny_driver("qwen4_exp", torch.float32))
    assert choice.is_inside
    assert choice.inside_from == 64
    assert "from inside a call from token 64 on" in str(choice)
    assert "after 1 token state.layers.1.conv_states.2 is inf away" in choice.reason


@pytest.mark.parametrize("family", sorted(set(ALL_FAMILIES) - NOT_KNOWN - {"qwen4_exp"}))
def test_other_families_are_captured_inside_from_the_first_token_on(family):
    assert choose_capture(tiny_driver(family, torch.float32)).inside_from == 0


@pytest.mark.parametrize("family", ["qwen4_exp", "qwen3_5", "inkling"])
def test_prompts_that_share_their_first_token_alone_are_answered_as_cold(family):
    model = tiny_model(family)
    warm = Engine.open(model, numerics="fast", capacity="4MB", policy="tail+junction")
    cold = warm.sibling(capacity="4MB", policy="none")
    reused = 0
    for number in range(4):
        tokens = [1, *range(20 + 40 * number, 26 + 41 * number)]
        answer = warm.generate(tokens, max_new_tokens=4, temperature=0.0)
        assert answer.tokens == cold.generate(tokens, max_new_tokens=4, temperature=0.0).tokens
        reused += answer.report.reused
    assert reused == 2


def with_other_names(torch_function, names):
    """Return the same as a kernel's function, which has other names for some of what it is given."""
    signature = inspect.signature(torch_function)
    parameters = [
        each.replace(name=names.get(each.name, each.name)) for each in signature.parameters.values()
    ]

    def kernel(*args, **options):
        return torch_function(*args, **options)

    kernel.__signature__ = inspect.Signature(parameters)
    return kernel


FLASH_LINEAR_ATTENTION = {"query": "q", "key": "k", "value": "v"}
MAMBA_SSM = {"hidden_states": "x"}


@pytest.mark.parametrize(
    ("family", "name", "names"),
    [
        ("qwen3_5", "torch_chunk_gated_delta_rule", FLASH_LINEAR_ATTENTION),
        ("olmo_hybrid", "torch_chunk_gated_delta_rule", FLASH_LINEAR_ATTENTION),
        ("kimi_linear", "chunk_kimi_delta_attention", FLASH_LINEAR_ATTENTION),
        ("mamba2", "mamba2_chunk_scan", MAMBA_SSM),
        ("falcon_h1", "mamba2_chunk_scan", MAMBA_SSM),
    ],
)
def test_kernels_with_other_names_for_what_they_are_given_are_called_in_pieces(
    family, name, names, monkeypatch
):
    """As upstream puts them in the place of its own function, which drops the names that a kernel lacks."""
    model = tiny_model(family)
    module = sys.modules[type(model).__module__]
    torch_function = inspect.unwrap(getattr(module, name))
    calls = []

    def counted(*args, **options):
        calls.append(args[0].shape[1])
        return torch_function(*args, **options)

    counted.__signature__ = inspect.signature(torch_function)
    kernel = with_other_names(counted, names)
    monkeypatch.setitem(sys.modules, "their_kernels", SimpleNamespace(kernel=kernel))
    installed = use_kernel_func_from_hub_with_fallback("kernel", "their_kernels")(torch_function)
    monkeypatch.setattr(module, name, installed)
    choice = choose_capture(driver_for(model))
    assert choice.is_inside, str(choice)
    assert 21 in calls


def test_a_kernel_that_bears_no_pieces_is_called_whole(monkeypatch):
    """What fails only in pieces is no reason not to open a model."""
    model = tiny_model("qwen3_5")
    module = sys.modules[type(model).__module__]
    upstream = module.torch_chunk_gated_delta_rule

    def whole_chunks_from_states(*args, initial_state=None, **options):
        if initial_state is not None and args[0].shape[1] == 21:
            raise RuntimeError("no such length")
        return upstream(*args, initial_state=initial_state, **options)

    whole_chunks_from_states.__signature__ = inspect.signature(upstream)
    monkeypatch.setattr(module, "torch_chunk_gated_delta_rule", whole_chunks_from_states)
    choice = choose_capture(driver_for(model))
    assert str(choice) == "where a call ends (its recurrence fails in pieces: RuntimeError: no such length)"


def test_a_function_that_names_nothing_is_not_guessed_at(monkeypatch):
    model = tiny_model("qwen3_5")
    module = sys.modules[type(model).__module__]
    upstream = module.torch_chunk_gated_delta_rule

    def anonymous(*args, **options):
        return upstream(*args, **options)

    monkeypatch.setattr(module, "torch_chunk_gated_delta_rule", anonymous)
    choice = choose_capture(driver_for(model))
    assert (
        str(choice) == "where a call ends (its recurrence is a function that does not name what it is given)"
    )


def test_where_rounding_hides_a_lost_state_a_call_ends_at_each():
    """In bfloat16 this tiny model carries rounding as far as a state moves in some tokens."""
    choice = choose_capture(driver_for(tiny_model("kimi_linear", torch.bfloat16)))
    assert not choice.is_inside
    assert "not tested: 21 tokens move" in choice.reason


@pytest.mark.parametrize("family", ["qwen3_5", "mamba2", "lfm2", "gpt_oss", "minimax", "jamba"])
def test_states_of_a_token_too_early_are_noticed(family, monkeypatch):
    """The control: the comparison fails where it has to."""

    def a_token_early(self, cache, offsets, num_tokens):
        upstream(self, cache, [max(1, offset - 1) for offset in offsets], num_tokens)

    upstream = Recording.__init__
    monkeypatch.setattr(Recording, "__init__", a_token_early)
    choice = choose_capture(tiny_driver(family, torch.float32))
    assert not choice.is_inside
    assert "away from that of a call that ends there" in choice.reason


def test_states_that_fit_and_do_not_go_on_are_noticed(monkeypatch):
    """A snapshot that names another position is resumed there."""
    upstream = Recording.snapshots

    def misplaced(self, position):
        states = upstream(self, position)
        return [*states[:2], type(states[2])(states[2].position - 1, *list_of(states[2])), *states[3:]]

    def list_of(state):
        return state.frame, state.num_bytes

    monkeypatch.setattr(recording_module.Recording, "snapshots", misplaced)
    choice = choose_capture(tiny_driver("qwen3_5", torch.float32))
    assert not choice.is_inside
    assert "away from uninterrupted ones" in choice.reason


def test_the_choice_is_said_when_a_model_is_opened(caplog):
    with caplog.at_level(logging.INFO, logger="milepost"):
        engine = Engine.open(tiny_model("qwen3_5"), numerics="fast", capacity="1MB")
    assert engine.capture.is_inside
    assert "it is taken from inside a call (logits are" in engine.description
    assert any("states are taken from inside a call" in record.getMessage() for record in caplog.records)


def test_strict_numerics_ends_a_call_at_each():
    engine = Engine.open(tiny_model("qwen3_5"), capacity="1MB")
    assert str(engine.capture) == "where a call ends (a call of another length would round otherwise)"


def test_a_model_without_states_has_none_to_take():
    engine = Engine.open(tiny_model("qwen3"), numerics="fast", capacity="1MB")
    assert engine.capture.reason == "there are none"


def test_fast_numerics_takes_states_inside_and_answers_alike():
    model, tokens = tiny_model("qwen3_5"), list(range(3, 203)) * 4
    engine = Engine.open(model, numerics="fast", capacity="4MB", policy="balanced:3")
    calls = []
    advance = engine.driver.advance
    engine.driver.advance = lambda live, piece: calls.append(piece.numel()) or advance(live, piece)

    first = engine.generate(tokens, max_new_tokens=3)
    again = engine.generate(tokens, max_new_tokens=3)

    assert calls[:4] == [256, 256, 256, 32]
    assert len(first.captured_positions) == 3
    assert any(position % 256 for position in first.captured_positions)
    assert again.report.reused == max(first.captured_positions)
    assert again.tokens == first.tokens


def test_a_prompt_that_generate_goes_on_from_leaves_its_states_too():
    engine = Engine.open(tiny_model("qwen3_5"), numerics="fast", capacity="4MB", policy="balanced:1")
    tokens = list(range(3, 203))
    position = engine.resume(tokens).position
    assert 0 < position < 200
    assert engine.resume(tokens).report.reused == position


def test_a_mixer_that_was_replaced_behind_its_back_is_noticed(monkeypatch):
    """As if a kernel had taken the place of the whole of it."""
    model = tiny_model("qwen3_5")
    engine = Engine.open(model, numerics="fast", capacity="4MB", policy="balanced:1")
    mixer = model.model.layers[0].linear_attn
    monkeypatch.setattr(
        mixer, "forward", lambda *args, **options: type(mixer).forward(mixer, *args, **options)
    )
    with pytest.raises(
        UnsupportedModelError, match=r"taken from inside a call .* when it was opened, and are to be"
    ):
        engine.generate(list(range(3, 203)), max_new_tokens=1)
    monkeypatch.undo()
    assert engine.generate(list(range(3, 203)), max_new_tokens=1).captured_positions


def test_a_model_whose_first_states_cannot_be_had_inside_any_more_is_noticed(monkeypatch):
    model = tiny_model("qwen3_5")
    engine = Engine.open(model, numerics="fast", capacity="4MB", policy="balanced:1")
    upstream = admission.choose_capture
    monkeypatch.setattr(admission, "choose_capture", lambda driver: replace(upstream(driver), inside_from=64))
    norm = model.model.norm
    monkeypatch.setattr(norm, "forward", lambda *args: type(norm).forward(norm, *args))
    with pytest.raises(UnsupportedModelError, match="inside a call from token 64 on"):
        engine.generate(list(range(3, 203)), max_new_tokens=1)
    monkeypatch.undo()
    assert engine.generate(list(range(3, 203)), max_new_tokens=1).captured_positions


def test_states_that_no_look_foresaw_to_be_lost_end_the_request_alone(monkeypatch):
    """What a module reads from elsewhere than its attributes and its file, nobody looks at."""
    engine = Engine.open(tiny_model("qwen3_5"), numerics="fast", capacity="4MB", policy="balanced:1")

    def unseen(*_):
        raise UnsupportedModelError("its cache holds states that no known recurrence computes")

    monkeypatch.setattr(engine.driver, "advance_through", unseen)
    with pytest.raises(ModelChangedError, match="no known recurrence computes: undo what was changed"):
        engine.generate(list(range(3, 203)), max_new_tokens=1)
    monkeypatch.undo()
    assert engine.generate(list(range(3, 203)), max_new_tokens=1).captured_positions
