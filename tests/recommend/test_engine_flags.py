"""Every flag that is printed, against what its engine had when it was read: a new flag needs a new line here.

vLLM's own parser reads its flags in ``tests_vllm/test_recommended_flags.py``. The others, read in November
2026: SGLang in the argument fields of release 0.5.23 (``srt/arg_groups/fields``), llama.cpp in
``tools/server/README.md`` of commit 00dc805, mlx-lm in ``mlx_lm/server.py`` of 0.32.2, TensorRT-LLM in the
API reference of 1.3.0rc27 (``KvCacheConfig``, ``MambaStateConfig``).
"""

import re
import shlex

import pytest

from milepost.recommend import Recommendation, recommend
from milepost.simulator import nominal_footprint
from milepost.traces import open_trace

FLAGS = {
    "sglang": {
        "--model-path",
        "--mamba-radix-cache-strategy",
        "--mamba-full-memory-ratio",
        "--mamba-max-states-per-path",
        "--chunked-prefill-size",
    },
    "milepost-sglang": {
        "--radix-cache-backend",
        "--model-path",
        "--mamba-radix-cache-strategy",
        "--mamba-full-memory-ratio",
        "--chunked-prefill-size",
    },
    "tensorrt": {"--config"},
    "llamacpp": {"-m", "--ctx-checkpoints", "--checkpoint-min-step", "--cache-ram"},
    "mlx": {"--model", "--prompt-cache-size", "--prompt-cache-bytes"},
    "milepost": {"--capacity"},
}
YAML_FIELDS = {
    *("kv_cache_config", "enable_block_reuse", "use_kv_cache_manager_v2", "max_gpu_total_bytes"),
    *("mamba_state_config", "enable_branch_snapshot", "periodic_snapshot_interval"),
    *("additional_snapshot_offsets_from_start", "additional_snapshot_offsets_from_end"),
}
TRACES = (
    "synthetic:documents,requests=60,seed=2",
    "synthetic:chat,requests=80,seed=2",
    "synthetic:uniform,requests=60,seed=2",
)


@pytest.fixture(scope="module", params=TRACES)
def advice(request: pytest.FixtureRequest) -> Recommendation:
    return recommend(
        open_trace(request.param),
        footprint=nominal_footprint(1536),
        capacity_kv_tokens=200_000,
        model="MODEL",
        memory_bytes=4 << 30,
        engines=tuple(FLAGS),
    )


def test_every_flag_is_one_that_its_engine_has(advice: Recommendation) -> None:
    for engine in advice.engines:
        (command,) = engine.instructions.commands
        flags = {word for word in shlex.split(command) if word.startswith("-") and not word[1:2].isdigit()}
        assert flags - {"-m"} or engine.engine == "tensorrt"
        assert flags <= FLAGS[engine.engine] | ({"-m"} if command.startswith("python -m ") else set())


def test_every_field_is_one_that_tensorrt_has(advice: Recommendation) -> None:
    (tensorrt,) = (each for each in advice.engines if each.engine == "tensorrt")
    ((_, content),) = tensorrt.instructions.files
    fields = set(re.findall(r"^ *(\w+):", content, re.MULTILINE))
    assert "mamba_state_config" in fields
    assert fields <= YAML_FIELDS


def test_the_settings_that_were_simulated_are_the_ones_printed(advice: Recommendation) -> None:
    for engine in advice.engines:
        printed = " ".join((*engine.instructions.commands, *(c for _, c in engine.instructions.files)))
        for name, value in engine.settings.items():
            shown = str(list(value)) if isinstance(value, tuple) else str(value)
            assert re.search(rf"{re.escape(name)}:? {re.escape(shown)}(\s|$)", printed, re.IGNORECASE)
