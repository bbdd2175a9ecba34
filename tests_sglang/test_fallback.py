"""Where checkpoints cannot be planned, SGLang runs as it is, and says so once."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.sglang.bare_engine import BareEngine
from sglang.srt.mem_cache.unified_radix_cache import UnifiedRadixCache

from milepost.sglang import compatibility
from milepost.sglang.planned_cache import PlannedRadixCache


def made_with(caplog, **options):
    with caplog.at_level(logging.WARNING, "milepost"):
        cache = BareEngine(**options).cache
    return cache, [record.getMessage() for record in caplog.records if record.name.startswith("milepost")]


@pytest.mark.parametrize(
    ("what", "options"),
    [
        ("extra_buffer_lazy", {"params": {"enable_mamba_extra_buffer_lazy": True}}),
        ("--enable-streaming-session", {"options": {"enable_streaming_session": True}}),
        ("--dcp-size", {"options": {"dcp_size": 2}}),
        ("--disaggregation-mode", {"options": {"disaggregation_mode": "prefill"}}),
        ("--enable-lmcache", {"options": {"enable_lmcache": True}}),
        ("no_buffer", {"params": {"enable_mamba_extra_buffer": False}}),
    ],
)
def test_what_is_not_supported_runs_as_it_is_with_one_warning(caplog, monkeypatch, what, options):
    made = []
    monkeypatch.setattr("milepost.sglang.backend.default_radix_cache_factory", made.append)
    monkeypatch.setattr("benchmarks.sglang.bare_engine.create_tree_cache", _make_without_checks)
    _, warnings = made_with(caplog, **options)

    assert len(made) == 1, "SGLang's own factory was asked"
    assert len(warnings) == 1
    assert what in warnings[0]
    assert "SGLang runs as it is" in warnings[0]


def _make_without_checks(context):
    from milepost.sglang.backend import make_cache

    return make_cache(context)


def test_a_model_without_states_is_sglangs_own_cache(caplog):
    cache, warnings = made_with(caplog, context={"is_hybrid_ssm": False})

    assert type(cache) is UnifiedRadixCache
    assert len(warnings) == 1
    assert "no recurrent layers" in warnings[0]


def test_a_method_with_other_arguments_is_named_with_the_versions_that_were_tested(caplog, monkeypatch):
    monkeypatch.setattr(UnifiedRadixCache, "on_release", lambda self, request: None)
    cache, warnings = made_with(caplog)

    assert type(cache) is UnifiedRadixCache
    assert "on_release(self, request)" in warnings[0]
    assert compatibility.TESTED_VERSIONS in warnings[0]


def test_another_backend_is_never_planned():
    engine = BareEngine(None)
    BareEngine("milepost")

    assert type(engine.cache) is UnifiedRadixCache
    assert engine.serve(list(range(1, 3000)))[1] == [2048, 2944], "as without Milepost, hooks or not"


def test_the_backend_is_supported_here():
    engine = BareEngine("milepost")

    assert isinstance(engine.cache, PlannedRadixCache)
    assert engine.manager is not None


def test_loading_the_plugins_of_sglang_makes_the_backend_known_and_changes_nothing_else():
    code = (
        "from benchmarks.sglang import absent_torchvision; absent_torchvision.stand_in()\n"
        "import sys\n"
        "from sglang.srt.plugins import load_plugins\n"
        "load_plugins()\n"
        "from sglang.srt.mem_cache.registry import registered_radix_cache_backends\n"
        "from sglang.srt.plugins.hook_registry import HookRegistry\n"
        "assert 'milepost' in registered_radix_cache_backends()\n"
        "assert not HookRegistry._patched, HookRegistry._patched\n"
        "assert 'milepost.sglang.backend' not in sys.modules and 'numba' not in sys.modules\n"
    )
    folder = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=folder, timeout=300)
