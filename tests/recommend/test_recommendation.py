"""Real replays of small made-up logs: what is recommended, what it is worth, and that it is not a default."""

import json
from dataclasses import replace
from functools import cache

import pytest

from milepost import PrefixCache, parse_policy
from milepost.errors import CapacityError, ConfigurationError, TraceFormatError
from milepost.footprint import Footprint, PrefillCost
from milepost.recommend import ENGINES, EngineAdvice, ModelLayout, Recommendation, Situation, recommend
from milepost.recommend.engines.blocks import match_unit_tokens
from milepost.recommend.engines.milepost_vllm import MOST_STOPS, STOP_TOKENS
from milepost.simulator import nominal_footprint, replay, simulate
from milepost.traces import open_trace
from milepost.vllm.layout import PoolLayout
from milepost.vllm.options import Options
from milepost.vllm.step_cost import StepCost

DOCUMENTS = "synthetic:documents,requests=120,seed=2,document=4000"
CHAT = "synthetic:chat,requests=240,seed=2,concurrency=8"
UNIFORM = "synthetic:uniform,requests=100,seed=2"
AMPLE = 400_000


BLOCKS = 512


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
    assert advice_for("milepost", DOCUMENTS).grid == 256


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
        *(each.outcome.reused_fraction for each in recommendation.engines if each.outcome),
    )
    for each in recommendation.engines:
        if each.outcome is None or each.regret_to_best is None:
            assert trace == UNIFORM, "only its requests have no messages"
            continue
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
    assert commands["mlx"].commands[0].endswith(f"--prompt-cache-bytes {8 << 30}")
    assert f"--kv-cache-memory-bytes {8 << 30}" in commands["milepost-vllm"].commands[0]
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
        "prefill_cost",
        "saved_seconds",
        "regret_to_best",
        "regret_to_clairvoyant",
        "grid",
        "settings",
        "num_tried",
        "instructions",
        "is_served",
    }
    assert facts["engines"][0]["instructions"].keys() == {"commands", "files", "notes"}


def test_mistakes_are_refused_by_name() -> None:
    footprint = nominal_footprint(1536)
    with pytest.raises(
        ConfigurationError,
        match="engine 'vlm' is unknown; it is one of milepost-vllm, milepost-sglang, milepost",
    ):
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


def test_the_plugin_is_offered_first_and_by_the_flag_that_loads_it() -> None:
    first = advised(DOCUMENTS).engines[0]
    assert first.engine == "milepost-vllm"
    assert " --scheduler-cls milepost.vllm.Scheduler" in first.instructions.commands[0]


def test_inside_sglang_it_is_offered_before_sglang_alone_and_reuses_more() -> None:
    names = [engine.engine for engine in advised(DOCUMENTS).engines]
    assert names.index("milepost-sglang") < names.index("sglang")
    plugin, stock = (advice_for(engine, DOCUMENTS) for engine in ("milepost-sglang", "sglang"))
    assert " --radix-cache-backend milepost" in plugin.instructions.commands[0]
    ratio, chunk = (plugin.settings[name] for name in ("--mamba-full-memory-ratio", "--chunked-prefill-size"))
    assert plugin.outcome is not None
    assert stock.outcome is not None
    assert plugin.outcome.policy == f"learned:share={ratio / (1 + ratio):.4f},chunk={chunk}"
    assert plugin.outcome.reused_fraction > stock.outcome.reused_fraction


def test_the_plugin_is_simulated_as_the_cache_that_runs_inside_vllm() -> None:
    options = Options()
    # What a stop costs is learned from the steps there, which a replay has not: it goes by what the plugin
    # does before the first.
    assert (options.max_stops, options.stop_tokens) == (MOST_STOPS, None)
    assert StepCost().stop_tokens == STOP_TOKENS
    trace = list(open_trace(CHAT))
    advice = advice_for("milepost-vllm", CHAT)
    layout = PoolLayout(
        num_blocks=AMPLE // BLOCKS,
        block_tokens=BLOCKS,
        match_tokens=advice.grid or BLOCKS,
        kv_groups=(0,),
        state_groups=(1, 2, 3),
    )
    cache = PrefixCache(
        capacity_bytes=AMPLE,
        footprint=Footprint(
            checkpoint_bytes=layout.blocks_of_state(advice.grid or BLOCKS) * BLOCKS, kv_bytes_per_token=1
        ),
        policy=parse_policy("learned"),
        grid=layout.grid_tokens,
        segment_tokens=layout.block_tokens,
        key_tokens=trace[0].key_tokens,
        max_checkpoints=options.max_stops,
        capture_tokens=STOP_TOKENS,
    )
    reused = sum(served.report.reused for served in replay(trace, cache, segment_tokens=BLOCKS))
    # Bytes of another size: what is learned of them is rounded otherwise.
    assert advice.reused_tokens == pytest.approx(reused, rel=1e-3)


def test_a_match_unit_is_set_where_prompts_share_less_than_a_block() -> None:
    trace = "synthetic:system-prompts,requests=200,seed=1,systems=4,system=400"
    plugin, stock = (advice_for(engine, trace) for engine in ("milepost-vllm", "vllm"))
    assert plugin.settings["--prefix-match-unit"] == plugin.grid == 64
    assert plugin.outcome is not None
    assert stock.outcome is not None
    assert plugin.outcome.reused_fraction > 1.2 * stock.outcome.reused_fraction


def test_a_match_unit_divides_the_block_and_is_told_apart_by_the_log() -> None:
    def unit(block: int, key_tokens: int) -> int | None:
        footprint = nominal_footprint(1536)
        return match_unit_tokens(
            Situation(
                model=None,
                footprint=footprint,
                layout=ModelLayout(block, 3),
                capacity_kv_tokens=1,
                memory_bytes=None,
                key_tokens=key_tokens,
                grid=64,
            )
        )

    assert [unit(block, 1) for block in (512, 528, 544, 1056, 64, 16)] == [64, 48, 32, 48, None, None]
    assert unit(512, 64) == 64
    assert unit(528, 64) is None
    assert unit(512, 512) is None


def test_no_command_has_a_flag_that_its_engine_ignores() -> None:
    for trace in (DOCUMENTS, CHAT, UNIFORM):
        for engine in advised(trace).engines:
            assert "--mamba-cache-mode" not in " ".join(engine.instructions.commands)


def test_what_is_left_to_compute_is_what_was_not_saved() -> None:
    advice = advised(CHAT)
    for engine in advice.engines:
        assert engine.outcome is not None
        assert engine.prefill_cost is not None
        assert engine.prefill_cost == pytest.approx(
            advice.total_cost * (1.0 - engine.outcome.saved_cost_fraction)
        )


def test_engines_that_go_by_messages_are_not_guessed_at_where_a_log_has_none() -> None:
    bare = [replace(request, breakpoints=()) for request in open_trace(CHAT)]
    advice = recommend(bare, footprint=nominal_footprint(1536), capacity_kv_tokens=AMPLE, max_requests=60)
    unknown = [each for each in advice.engines if each.outcome is None]
    assert [each.engine for each in unknown] == ["llamacpp", "mlx"]
    for each in unknown:
        assert each.num_tried == 0
        assert each.reused_tokens is each.prefill_cost is each.grid is None
        assert each.instructions.notes[0].startswith("not simulated: ")
        assert each.instructions.commands
    assert all(each.outcome is not None for each in advised(CHAT).engines)


def test_copies_of_whole_caches_hold_less_than_shared_kv() -> None:
    mlx, llamacpp = (advice_for(engine, CHAT).outcome for engine in ("mlx", "llamacpp"))
    tight = {each.engine: each.outcome for each in advised(CHAT, capacity_kv_tokens=30_000).engines}
    assert mlx is not None
    assert llamacpp is not None
    assert tight["mlx"] is not None
    assert tight["mlx"].reused_fraction < mlx.reused_fraction <= llamacpp.reused_fraction


def test_chunks_of_sglang_are_told_from_forks_and_ends_alone() -> None:
    for engine in (advice_for("sglang", trace) for trace in (DOCUMENTS, CHAT, UNIFORM)):
        (command,) = engine.instructions.commands
        (note,) = (note for note in engine.instructions.notes if "checkpoints-level" in note)
        keeps_chunks = "--chunked-prefill-size" in engine.settings
        assert keeps_chunks != ("--mamba-max-states-per-path 1" in command)
        assert f"add --hybrid-cache-checkpoints-level {3 if keeps_chunks else 2}" in note
