"""Real replays of small made-up logs: what is recommended, what it is worth, and that it is not a default."""

import json
from functools import cache

import pytest

from milepost.errors import CapacityError, ConfigurationError, TraceFormatError
from milepost.footprint import Footprint, PrefillCost
from milepost.recommend import ENGINES, EngineAdvice, Recommendation, recommend
from milepost.simulator import nominal_footprint, simulate
from milepost.traces import open_trace

DOCUMENTS = "synthetic:documents,requests=120,seed=2,document=4000"
CHAT = "synthetic:chat,requests=240,seed=2,concurrency=8"
UNIFORM = "synthetic:uniform,requests=100,seed=2"
AMPLE = 400_000


@cache
def advised(trace: str, capacity_kv_tokens: int = AMPLE) -> Recommendation:
    return recommend(
        open_trace(trace), footprint=nominal_footprint(1536), capacity_kv_tokens=capacity_kv_tokens
    )


def advice_for(engine: str, trace: str) -> EngineAdvice:
    return next(each for each in advised(trace).engines if each.engine == engine)


def test_every_engine_is_advised_on_in_the_tables_order() -> None:
    assert [each.engine for each in advised(DOCUMENTS).engines] == list(ENGINES)


def test_questions_after_documents_want_end_offsets_of_tensorrt() -> None:
    settings = advice_for("tensorrt", DOCUMENTS).settings
    assert min(settings["additional_snapshot_offsets_from_end"]) > 0
    assert "periodic_snapshot_interval" not in settings


def test_requests_that_part_anywhere_do_not() -> None:
    settings = advice_for("tensorrt", UNIFORM).settings
    assert "additional_snapshot_offsets_from_end" not in settings
    assert settings.keys() & {"periodic_snapshot_interval", "additional_snapshot_offsets_from_start"}


def test_conversations_that_go_on_want_the_prompts_end_and_documents_do_not() -> None:
    settings = advice_for("tensorrt", CHAT).settings
    assert 0 in settings["additional_snapshot_offsets_from_end"]
    assert 0 not in advice_for("tensorrt", DOCUMENTS).settings["additional_snapshot_offsets_from_end"]


def test_conversations_want_no_retention_of_vllm() -> None:
    settings = advice_for("vllm", CHAT).settings
    assert settings == {"--prefix-cache-retention-interval": 0}
    assert "--max-num-batched-tokens" not in advice_for("vllm", CHAT).instructions.commands[0]


def test_a_retention_interval_comes_with_chunks_as_short() -> None:
    # Requests that part anywhere are what an interval is for.
    settings = advice_for("vllm", UNIFORM).settings
    interval = settings["--prefix-cache-retention-interval"]
    assert interval > 0
    assert interval % 512 == 0
    assert settings["--max-num-batched-tokens"] == interval


def test_vllm_is_simulated_on_its_own_blocks() -> None:
    assert advice_for("vllm", DOCUMENTS).grid == 512
    assert advice_for("milepost", DOCUMENTS).grid == 16


def test_expectations_are_those_of_a_plain_simulation() -> None:
    advice = advice_for("tensorrt", DOCUMENTS)
    result = simulate(
        open_trace(DOCUMENTS),
        policy=advice.outcome.policy,
        capacity_kv_tokens=AMPLE,
        checkpoint_kv_tokens=1536,
        grid=advice.grid,
    )
    assert result.reused_tokens == advice.reused_tokens
    assert result.reused_fraction == advice.outcome.reused_fraction


@pytest.mark.parametrize("trace", [DOCUMENTS, CHAT, UNIFORM])
def test_regret_is_what_the_best_reuses_beyond(trace: str) -> None:
    recommendation = advised(trace)
    best = max(
        *(each.reused_fraction for each in recommendation.policies),
        *(each.outcome.reused_fraction for each in recommendation.engines),
    )
    for each in recommendation.engines:
        assert each.regret_to_best >= 0.0
        assert each.outcome.reused_fraction + each.regret_to_best <= recommendation.ceiling_fraction + 1e-12
        if recommendation.clairvoyant_fraction is None:
            assert each.outcome.reused_fraction + each.regret_to_best >= best - 1e-12


def test_the_same_log_gives_the_same_advice() -> None:
    again = recommend(open_trace(CHAT), footprint=nominal_footprint(1536), capacity_kv_tokens=AMPLE)
    assert again.as_json() == advised(CHAT).as_json()


def test_time_is_saved_where_the_cost_is_in_seconds() -> None:
    seconds = PrefillCost(unit="seconds", linear_per_token=1e-3, attention_per_pair=1e-6)
    footprint = Footprint(checkpoint_bytes=1_536_000, kv_bytes_per_token=1_000, cost=seconds)
    trace = list(open_trace(CHAT))[:60]
    advice = recommend(trace, footprint=footprint, capacity_kv_tokens=AMPLE, engines=["tensorrt"])
    (engine,) = advice.engines
    assert advice.cost_unit == "seconds"
    assert advice.total_cost == pytest.approx(sum(seconds(request.num_tokens) for request in trace))
    assert engine.saved_seconds is not None
    assert engine.saved_seconds == pytest.approx(engine.outcome.saved_cost_fraction * advice.total_cost)
    # Attention makes late tokens dearer, and what is reused are early ones.
    assert 0.0 < engine.outcome.saved_cost_fraction < engine.outcome.reused_fraction
    assert all(each.saved_seconds is None for each in advised(CHAT).engines)


def test_engines_and_requests_can_be_restricted() -> None:
    advice = recommend(
        open_trace(CHAT),
        footprint=nominal_footprint(1536),
        capacity_kv_tokens=AMPLE,
        engines=["vllm"],
        max_requests=20,
    )
    assert [each.engine for each in advice.engines] == ["vllm"]
    assert advice.num_requests == 20


def test_progress_is_shown_for_each_pass() -> None:
    labels = []

    def watch(requests, label):  # type: ignore[no-untyped-def]
        labels.append((label, len(requests)))
        return requests

    recommend(
        open_trace(CHAT),
        footprint=nominal_footprint(1536),
        capacity_kv_tokens=AMPLE,
        engines=["vllm"],
        max_requests=10,
        watch=watch,
    )
    assert labels == [("policies", 10), ("engines", 10)]


def test_the_commands_carry_the_memory_and_the_model() -> None:
    advice = recommend(
        open_trace(CHAT),
        footprint=nominal_footprint(1536),
        capacity_kv_tokens=AMPLE,
        model="my model",
        memory_bytes=8 << 30,
        max_requests=20,
    )
    commands = {each.engine: each.instructions for each in advice.engines}
    assert commands["milepost"].commands[0].endswith("--capacity 8GiB")
    assert "vllm serve 'my model' " in commands["vllm"].commands[0]
    assert f"--kv-cache-memory-bytes {8 << 30}" in commands["vllm"].commands[0]
    assert commands["llamacpp"].commands[0].endswith("--cache-ram 8192")
    ((name, content),) = commands["tensorrt"].files
    assert commands["tensorrt"].commands == (f"trtllm-serve 'my model' --config {name}",)
    assert f"max_gpu_total_bytes: {8 << 30}" in content
    assert all(each.instructions.notes for each in advice.engines)


def test_the_json_is_plain_and_has_every_field() -> None:
    facts = json.loads(json.dumps(advised(CHAT).as_json()))
    assert facts.keys() == {
        "trace",
        "model",
        "num_requests",
        "num_warm_up_requests",
        "input_tokens",
        "capacity_kv_tokens",
        "memory_bytes",
        "checkpoint_bytes",
        "checkpoint_kv_tokens",
        "cost_unit",
        "total_cost",
        "ceiling_fraction",
        "clairvoyant_fraction",
        "policies",
        "engines",
    }
    assert facts["engines"][0].keys() == {
        "engine",
        "title",
        "outcome",
        "reused_tokens",
        "saved_seconds",
        "regret_to_best",
        "regret_to_clairvoyant",
        "grid",
        "settings",
        "num_tried",
        "instructions",
    }
    assert facts["engines"][0]["instructions"].keys() == {"commands", "files", "notes"}


def test_mistakes_are_refused_by_name() -> None:
    footprint = nominal_footprint(1536)
    with pytest.raises(ConfigurationError, match="engine 'vlm' is unknown; it is one of milepost, vllm"):
        recommend(open_trace(CHAT), footprint=footprint, capacity_kv_tokens=AMPLE, engines=["vlm"])
    with pytest.raises(ConfigurationError, match="max_requests=0"):
        recommend(open_trace(CHAT), footprint=footprint, capacity_kv_tokens=AMPLE, max_requests=0)
    with pytest.raises(TraceFormatError, match="holds no request"):
        recommend([], footprint=footprint, capacity_kv_tokens=AMPLE)
    with pytest.raises(CapacityError, match="cannot hold one checkpoint"):
        recommend(open_trace(CHAT), footprint=footprint, capacity_kv_tokens=1_000)


def test_conversations_want_no_retention_where_memory_is_short_either() -> None:
    tight = advised(CHAT, capacity_kv_tokens=20_000)
    vllm = next(each for each in tight.engines if each.engine == "vllm")
    assert vllm.settings == {"--prefix-cache-retention-interval": 0}
    assert vllm.num_tried > 1
    llamacpp = next(each for each in tight.engines if each.engine == "llamacpp")
    assert llamacpp.settings["--checkpoint-min-step"] >= 4096


def test_knowing_the_future_bounds_what_the_policies_reuse() -> None:
    advice = advised(CHAT)
    assert advice.clairvoyant_fraction is not None
    for engine in advice.engines:
        assert engine.regret_to_clairvoyant == pytest.approx(
            advice.clairvoyant_fraction - engine.outcome.reused_fraction
        )


def test_sglang_is_told_how_to_split_its_memory() -> None:
    advice = advice_for("sglang", DOCUMENTS)
    ratio = advice.settings["--mamba-full-memory-ratio"]
    assert advice.outcome.policy.startswith(f"sglang:share={ratio / (1 + ratio):.4f}")
    assert f"--mamba-full-memory-ratio {ratio}" in advice.instructions.commands[0]
