"""Where it cannot work, vLLM runs as it is, and the reason is said once."""

import copy

import engine
import pytest
from bare_scheduler import BareEngine
from drafting import DraftingEngine
from engine import Job, Round
from vllm.config import VllmConfig
from vllm.v1.core.block_pool import BlockPool
from vllm.v1.core.sched.scheduler import Scheduler as StockScheduler

from milepost.errors import ConfigurationError
from milepost.vllm import compatibility, scheduler

PLANNED = "milepost.vllm.Scheduler"


@pytest.fixture
def warnings(monkeypatch):
    said = []
    monkeypatch.setattr(scheduler.logger, "warning", lambda text, *values: said.append(text % values))
    return said


@pytest.fixture
def new_engine(model_folder):
    return lambda **options: BareEngine(
        model_folder("qwen3-next"), **{"scheduler_cls": PLANNED, "num_blocks": 80} | options
    )


def assert_stock_and_said(engine, warnings, reason):
    assert type(engine.scheduler) is StockScheduler
    assert len(warnings) == 1
    assert warnings[0].startswith("Milepost is not active, vLLM runs as it is: ")
    assert reason in warnings[0]
    engine.add(range(300), max_tokens=5)
    engine.run()


def test_switched_off(new_engine, warnings):
    off = new_engine(additional_config={"milepost": {"enabled": False}})
    assert_stock_and_said(off, warnings, "switched off")


def test_without_prefix_caching(new_engine, warnings):
    assert_stock_and_said(new_engine(enable_prefix_caching=False), warnings, "prefix caching is off")


def test_a_model_without_recurrent_layers(new_engine, warnings):
    assert_stock_and_said(new_engine(num_state_groups=0), warnings, "no recurrent layers")


def test_a_signature_that_has_changed(new_engine, warnings, monkeypatch):
    stock = StockScheduler._mamba_block_aligned_split

    def changed(self, request, tokens, num_new_local_computed_tokens=0, num_external_computed_tokens=0):
        return stock(self, request, tokens, num_new_local_computed_tokens, num_external_computed_tokens)

    monkeypatch.setattr(StockScheduler, "_mamba_block_aligned_split", changed)
    assert_stock_and_said(new_engine(), warnings, "_mamba_block_aligned_split(self, request, tokens,")


def test_a_method_that_is_gone(new_engine, monkeypatch):
    bare = new_engine()
    monkeypatch.delattr(StockScheduler, "_update_after_schedule")
    assert "no _update_after_schedule in Scheduler" in compatibility.why_not(
        bare.config, bare.kv_cache_config
    )


def test_states_that_cannot_be_kept_inside_a_block(new_engine, warnings, monkeypatch):
    monkeypatch.setattr(compatibility, "_JUNCTION_SWITCHES", ("gone",))
    assert_stock_and_said(new_engine(), warnings, "keeps no state inside a block")


def test_a_pool_that_has_changed(new_engine, warnings, monkeypatch):
    made = BlockPool.__init__

    def without_map(self, *args, **kwargs):
        made(self, *args, **kwargs)
        if self.num_gpu_blocks == 2:
            del self.cached_block_hashes_by_block

    monkeypatch.setattr(BlockPool, "__init__", without_map)
    assert_stock_and_said(new_engine(), warnings, "no cached_block_hashes_by_block")


def test_a_feature_that_is_not_supported_yet(new_engine):
    bare = new_engine()
    assert compatibility.why_not(bare.config, bare.kv_cache_config) is None
    config = copy.copy(bare.config)
    config.parallel_config = copy.copy(config.parallel_config)
    config.parallel_config.decode_context_parallel_size = 2
    assert "context parallelism" in compatibility.why_not(config, bare.kv_cache_config)


# Since 0.33 the last block is dropped only where hashes must not look ahead.
DROPS = {"disable_lookahead_block_hashes": True} if hasattr(VllmConfig, "num_hash_lookahead_tokens") else {}


def test_drafts_that_cost_a_hit_its_last_block(model_folder, warnings):
    drafting = DraftingEngine(
        model_folder("qwen3-next"), scheduler_cls=PLANNED, method="mtp", num_blocks=200, speculative=DROPS
    )
    assert drafting.scheduler.use_eagle_block_drop
    assert_stock_and_said(drafting, warnings, "with speculative method 'mtp' this vLLM reuses")
    assert "run vLLM 0.33 or newer" in warnings[0]
    assert "set disable_eagle_block_drop" in warnings[0]


def test_more_drafts_than_a_hash_has_tokens(model_folder, warnings):
    drafting = DraftingEngine(
        model_folder("qwen3-next"), scheduler_cls=PLANNED, num_blocks=400, block_size=16, num_drafts=16
    )
    assert_stock_and_said(drafting, warnings, "num_speculative_tokens=16 is no less than the 16")


def test_what_cannot_be_meant_is_an_error(new_engine):
    with pytest.raises(ConfigurationError, match="'max_stop'; known are"):
        new_engine(additional_config={"milepost": {"max_stop": 4}})


def test_breakpoints_that_make_no_sense_are_left_out(new_engine):
    bare = new_engine()
    given = [100, 0, -5, 10_000, "64", None, True, 150.7, float("nan")]
    bare.add(range(300), extra_args={"milepost_breakpoints": given})
    bare.add(range(300), extra_args={"milepost_breakpoints": "nonsense"})
    bare.run()
    assert bare.scheduler.checkpoint_manager.statistics().num_requests == 2


@pytest.mark.kernels
@pytest.mark.parametrize(("switch", "expected"), [("1", "PlannedScheduler"), ("0", "Scheduler")])
def test_the_entry_point_switches_it_on_and_is_inert_otherwise(switch, expected, model_folder, tmp_path):
    job = Job("qwen3-next", str(model_folder("qwen3-next")), [Round([list(range(5, 400))])])
    answer = engine.run(job, tmp_path, environment={"MILEPOST_VLLM": switch})
    assert answer["scheduler"] == expected
    assert answer["rounds"][0]["problem"] is None
