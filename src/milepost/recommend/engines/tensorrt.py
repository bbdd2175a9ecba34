"""TensorRT-LLM: states at distances from the prompt's start and end, and at an interval of tokens, all set by
hand.

What it has, from its API reference (``MambaStateConfig`` and ``KvCacheConfig``, release 1.3.0rc27) and its
KV cache page:

* ``kv_cache_config.mamba_state_config.periodic_snapshot_interval``: tokens between states; 0, the default,
  for none.
* ``...additional_snapshot_offsets_from_start`` and ``..._from_end``: distances above 0, and 0 or more,
  where 0 is the prompt's end; what falls outside a prompt is ignored. They need KV cache manager V2.
* ``...enable_branch_snapshot``: off by default; it refines where states are kept and does not by itself
  keep reuse on, for which at least one of the others is needed. In 1.4.0rc4 it is an alias, deprecated, of a
  field of ``BlockReuseConfig``, and a prompt to which no other point applies keeps its end.
* ``max_gpu_total_bytes``: bytes of the cache; ``enable_block_reuse``: on by default.

``trtllm-serve`` reads these from a YAML file, ``--config FILE`` (in older releases
``--extra_llm_api_options``).
"""

from collections.abc import Iterator

from milepost.recommend.engine import Candidate, EngineKind, Instructions, SettingValue, command_line
from milepost.recommend.engines.kv_alone import KV_ALONE, kv_alone
from milepost.recommend.profile import Offsets, TrafficProfile
from milepost.recommend.situation import Situation

__all__ = ["TENSORRT"]

_BRANCH = "enable_branch_snapshot"
_FROM_START = "additional_snapshot_offsets_from_start"
_FROM_END = "additional_snapshot_offsets_from_end"
_PERIODIC = "periodic_snapshot_interval"
_MOST_OFFSETS = 4
_SHORTEST_INTERVAL = 512
_FILE = "trtllm.yaml"


def _candidates(situation: Situation, profile: TrafficProfile) -> Iterator[Candidate]:
    if not situation.is_recurrent:
        yield kv_alone(situation)
        return
    for offsets in (
        Offsets(from_end=(0,)),
        *profile.best_offsets(grid=situation.grid, largest=_MOST_OFFSETS),
    ):
        yield _candidate(situation, offsets)
        yield _candidate(situation, offsets, branch=True)
    interval = max(_SHORTEST_INTERVAL, situation.grid)
    while interval < profile.longest_tokens:
        yield _candidate(situation, Offsets(), interval=interval)
        yield _candidate(situation, Offsets(from_end=(0,)), interval=interval)
        interval *= 2


def _candidate(
    situation: Situation, offsets: Offsets, *, interval: int | None = None, branch: bool = False
) -> Candidate:
    parts = []
    settings: dict[str, SettingValue] = {}
    if offsets.from_start:
        parts.append(f"start={'+'.join(map(str, offsets.from_start))}")
        settings[_FROM_START] = offsets.from_start
    if offsets.from_end:
        parts.append(f"end={'+'.join(map(str, offsets.from_end))}")
        settings[_FROM_END] = offsets.from_end
    if interval is not None:
        parts.append(f"every={interval}")
        settings[_PERIODIC] = interval
    if branch:
        parts.append("branch=yes")
        settings[_BRANCH] = True
    return Candidate(
        policy=f"tensorrt:{','.join(parts)}",
        grid=situation.grid,
        footprint=situation.footprint,
        settings=settings,
    )


def _instructions(situation: Situation, candidate: Candidate | None) -> Instructions:
    assert candidate is not None
    lines = ["kv_cache_config:", "  enable_block_reuse: true"]
    if situation.memory_bytes is not None:
        lines.append(f"  max_gpu_total_bytes: {situation.memory_bytes}")
    if candidate.settings:
        lines += ["  use_kv_cache_manager_v2: true", "  mamba_state_config:"]
        lines += [f"    {name}: {_yaml(value)}" for name, value in candidate.settings.items()]
    renamed = "--config is named --extra_llm_api_options in older releases"
    return Instructions(
        commands=(command_line("trtllm-serve", situation.model_name, "--config", _FILE),),
        files=((_FILE, "\n".join(lines) + "\n"),),
        notes=(
            "mamba_state_config is part of TensorRT-LLM 1.3.0rc27; a release whose reference lacks it has "
            "only mamba_state_cache_interval, an interval in tokens",
            "in 1.4.0rc4 enable_branch_snapshot is a deprecated alias: it belongs to BlockReuseConfig there",
            renamed,
        )
        if candidate.settings
        else (KV_ALONE, renamed),
    )


def _yaml(value: SettingValue) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return str(value).lower()


# Its PyTorch backend's index of models (``_torch/models/_arch_index.py``), November 2026.
_FAMILIES = frozenset(
    (
        *(
            "gemma3",
            "gemma3_text",
            "gpt_oss",
            "kimi_linear",
            "llama",
            "mistral",
            "nemotron_h",
            "qwen2",
            "qwen3",
        ),
        *("qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_5_text", "qwen3_moe", "qwen3_next"),
    )
)
TENSORRT = EngineKind(
    title="TensorRT-LLM", candidates=_candidates, instructions=_instructions, families=_FAMILIES
)
