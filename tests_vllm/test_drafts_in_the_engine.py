"""The whole engine with drafts, on the CPU: answers are those of stock vLLM with the same drafts.

Triton's kernels have stand-ins (``copy_kernels``). Compared with answers without drafts nothing could be
said: on the CPU build those differ in stock vLLM as well, and in a batch they hang on its shape. A model with
random weights accepts next to no draft, and the MTP layer's weights mean nothing: here drafts are rejected.
The simulated worker of ``drafting`` is where they are accepted.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import engine
import pytest
import torch
from engine import PLANNED, Job, Round
from test_exactness import prompts

pytestmark = pytest.mark.kernels

# The plugin needs that no block is dropped; stock vLLM is told the same.
KINDS = {
    "ngram": {
        "speculative_config": {
            "method": "ngram",
            "num_speculative_tokens": 3,
            "prompt_lookup_max": 3,
            "prompt_lookup_min": 1,
        }
    },
    "mtp": {
        "speculative_config": {
            "method": "mtp",
            "num_speculative_tokens": 2,
            "disable_eagle_block_drop": True,
        },
        "load_format": "dummy",
    },
}


WITHOUT_AMX = pytest.mark.skipif(
    not torch.cpu._is_amx_tile_supported(),
    reason="vLLM 0.32's own gated delta rule raises an error there on a CPU without AMX, planned or not",
)


@pytest.mark.parametrize("kind", [pytest.param("ngram", marks=WITHOUT_AMX), "mtp"])
def test_answers_are_those_of_stock_vllm_with_the_same_drafts(kind, model_folder, tmp_path, is_full):
    asked = [Round(prompts(60 if is_full else 12, seed=1), max_tokens=60 if is_full else 24)]
    folder = str(model_folder("qwen3-next"))

    pool = {"num_gpu_blocks_override": 80, "max_num_seqs": 6, "max_num_batched_tokens": 2048}

    def serve(scheduler):
        job = Job("qwen3-next", folder, asked, scheduler, pool | KINDS[kind])
        return engine.run(job, Path(tmp_path, str(scheduler)))

    with ThreadPoolExecutor(2) as threads:
        planned, stock = threads.map(serve, (PLANNED, None))
    assert (planned["scheduler"], stock["scheduler"]) == ("PlannedScheduler", "Scheduler")
    ours, theirs = planned["rounds"][0], stock["rounds"][0]
    assert ours["tokens"] == theirs["tokens"]
    assert ours["problem"] is None
    assert sum(ours["cached"]) >= sum(theirs["cached"]) > 0
    assert planned["counts"]["hits"] > 0
    assert planned["drafts"]["proposed"] > 0
    assert planned["copies"]["before a step"] > 0
