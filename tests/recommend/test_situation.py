"""What vLLM makes of a model, against the blocks that it prints."""

import pytest
from published_models import QWEN35_4B

from milepost.recommend import ModelLayout, Situation, layout_of, nominal_layout
from milepost.simulator import nominal_footprint

ATTENTION_ONLY = {
    "model_type": "qwen3",
    "dtype": "bfloat16",
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "intermediate_size": 3072,
}


def test_the_block_is_what_vllm_prints_for_a_published_model() -> None:
    # "Setting attention block size to 528 tokens": vllm-project/vllm issue 40696, float32 states.
    layout = layout_of(QWEN35_4B)
    assert layout is not None
    assert layout.pages_per_state == 3
    assert layout.block_tokens == pytest.approx(528, abs=16)


def test_a_model_without_states_has_no_such_layout() -> None:
    assert layout_of(ATTENTION_ONLY) is None


@pytest.mark.parametrize(("checkpoint", "block"), [(1536, 512), (1584, 528), (1, 16)])
def test_where_only_costs_are_known_a_usual_hybrid_is_assumed(checkpoint: float, block: int) -> None:
    assert nominal_layout(nominal_footprint(checkpoint)) == ModelLayout(block, 3)


@pytest.mark.parametrize(
    ("memory_bytes", "text"), [(40 << 30, "40GiB"), (3 << 20, "3MiB"), (1000, "1000"), (None, "SIZE")]
)
def test_memory_is_written_as_people_write_it(memory_bytes: int | None, text: str) -> None:
    footprint = nominal_footprint(1536)
    situation = Situation(
        model=None,
        footprint=footprint,
        layout=nominal_layout(footprint),
        capacity_kv_tokens=1,
        memory_bytes=memory_bytes,
        key_tokens=1,
        grid=64,
    )
    assert situation.memory_text == text
    assert situation.model_name == "MODEL"
