"""The self-probe lets every fixed family pass and refuses whatever does not continue from its state."""

import pytest
import torch
from resuming import prompt, run_cold, tiny_driver

from families import ALL_FAMILIES, tiny_model
from milepost.engines.transformers.adaptation import Adaptation
from milepost.engines.transformers.cache_argument import cache_among
from milepost.engines.transformers.driver import TransformersDriver
from milepost.engines.transformers.families import driver_for
from milepost.engines.transformers.probe import Verdict, measure_resume, probe_resume
from milepost.errors import UnsupportedModelError

both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
NOT_CONTINUED = "does not continue from the state it is given"


@pytest.mark.parametrize("family", ALL_FAMILIES)
@both_dtypes
@pytest.mark.parametrize("seed", [0, 1])
def test_every_family_passes_with_its_own_driver(family, dtype, seed):
    report = probe_resume(tiny_driver(family, dtype), seed=seed)

    assert report.verdict is Verdict.PASSED
    assert report.refusal is None
    assert report.resume_difference == 0.0
    assert report.one_shot_distance < (1e-5 if dtype == torch.float32 else 0.1)
    assert report.rounding_distance > 0.0
    assert report.lost_state_distance > 0.05


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_each_part_of_a_state_shows_when_it_is_lost(family):
    report = measure_resume(tiny_driver(family, torch.float32))

    # xLSTM counts its tokens in a tensor, and reads of it only whether there were any.
    assert set(report.not_tested) == ({"seqlen_offset"} if family == "xlstm" else set())
    assert bool(report.lost_part_distances) == report.has_state


def test_a_part_that_changes_nothing_is_not_tested_and_that_is_said():
    model = tiny_model("mamba2")
    with torch.no_grad():
        for block in model.backbone.layers:
            # The convolution looks at the running token alone.
            block.mixer.conv1d.weight[..., :-1] = 0

    report = measure_resume(driver_for(model))

    assert report.verdict is Verdict.PASSED
    assert report.not_tested == ("conv_states",)
    assert report.lost_part_distances["conv_states"] == 0


@pytest.mark.parametrize("family", ["qwen3_next", "mamba2", "qwen3", "gpt_oss"])
def test_the_report_measures_what_the_caches_hold(family):
    driver = tiny_driver(family, torch.float32)
    run = run_cold(driver, prompt(101), (0, 64, 101))

    report = measure_resume(driver)

    assert report.positions == (64, 101, 102, 104)
    assert report.resume_position == 101
    assert report.checkpoint_bytes == run.snapshots[101].num_bytes
    assert report.kv_bytes_per_token == sum(piece.num_bytes for piece in run.segments) / 101
    assert report.has_state == (family != "qwen3")


def test_a_probe_replays():
    driver = tiny_driver("jamba", torch.bfloat16)

    assert measure_resume(driver) == measure_resume(driver)
    assert measure_resume(driver, seed=1) != measure_resume(driver)


@pytest.mark.parametrize("family", ["mamba", "falcon_mamba", "jamba", "zamba"])
@both_dtypes
def test_a_scan_that_starts_from_zeros_is_refused(family, dtype):
    with pytest.raises(UnsupportedModelError, match=f"{family}: .*{NOT_CONTINUED}"):
        probe_resume(TransformersDriver(tiny_model(family, dtype)))


@both_dtypes
def test_state_on_the_modules_is_refused(dtype):
    with pytest.raises(
        UnsupportedModelError, match=r"recurrent_gemma: .*where no snapshot of its cache reaches"
    ):
        probe_resume(TransformersDriver(tiny_model("recurrent_gemma", dtype)))


@both_dtypes
def test_minimax_with_the_cache_of_upstream_is_refused(dtype):
    from transformers.models.minimax.modeling_minimax import MiniMaxCache

    upstream = Adaptation(new_cache=lambda model: MiniMaxCache())

    with pytest.raises(UnsupportedModelError, match=f"minimax: .*{NOT_CONTINUED}"):
        probe_resume(TransformersDriver(tiny_model("minimax", dtype), adaptation=upstream))


@both_dtypes
def test_bamba_without_positions_is_refused(dtype):
    driver = TransformersDriver(tiny_model("bamba", dtype))
    driver._call.takes_positions = False

    with pytest.raises(UnsupportedModelError, match=f"bamba: .*{NOT_CONTINUED}"):
        probe_resume(driver)


@pytest.mark.parametrize("family", ["xlstm", "rwkv", "minimax"])
def test_a_family_that_takes_another_cache_is_refused(family):
    with pytest.raises(
        UnsupportedModelError, match=f"{family}: its forward call fails on the cache it is given"
    ):
        probe_resume(TransformersDriver(tiny_model(family)))


def test_a_state_without_influence_is_refused_after_a_longer_try():
    model = tiny_model("mamba2")
    with torch.no_grad():
        for block in model.backbone.layers:
            block.mixer.out_proj.weight.zero_()

    assert measure_resume(driver_for(model)).verdict is Verdict.UNDECIDED
    with pytest.raises(
        UnsupportedModelError,
        match=r"not tested: .* after 296 tokens, .*it cannot be told whether it resumes",
    ):
        probe_resume(driver_for(model))


def test_logits_that_are_not_finite_are_refused():
    model = tiny_model("qwen3_next")
    with torch.no_grad():
        model.lm_head.weight[5] = torch.nan

    with pytest.raises(UnsupportedModelError, match="not finite"):
        probe_resume(driver_for(model))


def test_masked_logits_are_passed_over():
    model = tiny_model("qwen3_next")
    model.lm_head.register_forward_hook(
        lambda module, inputs, logits: logits.index_fill(-1, torch.tensor(5), -torch.inf)
    )

    assert probe_resume(driver_for(model)).refusal is None


def test_a_model_that_never_gives_the_same_bits_twice_passes_within_rounding():
    model = tiny_model("qwen3_next", torch.bfloat16)
    noise = torch.Generator().manual_seed(0)
    model.lm_head.register_forward_hook(
        lambda module, inputs, logits: (
            logits * (1 + 0.004 * torch.randn(logits.shape, generator=noise)).to(logits)
        )
    )

    report = probe_resume(driver_for(model))

    assert not report.is_repeatable
    assert report.resume_difference > 0


def test_special_tokens_are_not_drawn():
    driver = tiny_driver("qwen3_next", torch.float32)
    drawn = []
    watched = TransformersDriver(driver.model)
    watched.advance = lambda live, tokens: (
        drawn.append(tokens) or TransformersDriver.advance(watched, live, tokens)
    )

    measure_resume(watched)

    assert torch.cat(drawn).min() >= 3


def test_a_model_with_other_bits_from_keys_that_grow_in_place_is_served_without_them(caplog):
    model = tiny_model("qwen3")

    def looks_at_strides(attention, args, options, output):
        keys = cache_among(options).layers[attention.layer_idx].keys
        return output if keys.is_contiguous() else (output[0] * 1.001, *output[1:])

    for layer in model.model.layers:
        layer.self_attn.register_forward_hook(looks_at_strides, with_kwargs=True)
    driver = driver_for(model)
    with caplog.at_level("INFO"):
        report = probe_resume(driver)

    assert report.resume_difference == 0
    assert not driver.grows_in_place
    assert "copied with each call" in caplog.text
    # The control: a model that does not look at them.
    assert probe_resume(other := driver_for(tiny_model("qwen3"))).resume_difference == 0
    assert other.grows_in_place
