"""With ``--kv-cache-dtype fp8`` a hit answers as a prompt computed anew does, and a block holds more tokens,
so that a checkpoint costs more of them.

The reference is stock vLLM with the same KV and without prefix caching.
"""

import random

import engine
import pytest
import torch
from engine import PLANNED, Job, Round

pytestmark = [
    pytest.mark.kernels,
    pytest.mark.skipif(
        not (torch.cpu._is_avx512_supported() or torch.cpu._is_amx_tile_supported()),
        reason="vLLM keeps fp8 KV on a CPU only where that has AVX-512 or AMX",
    ),
]

MODEL = "falcon-h1"
POOL = {"max_num_seqs": 6, "max_num_batched_tokens": 2048, "num_gpu_blocks_override": 60}
FP8 = {"kv_cache_dtype": "fp8"}
# What a stop costs is not left to this machine's clock.
PLANNING = {"prefix_match_unit": 64, "additional_config": {"milepost": {"stop_tokens": 4}}}


def prompts():
    rng = random.Random(1)
    documents = [[rng.randrange(5, 500) for _ in range(600)] for _ in range(2)]
    return [
        rng.choice(documents)[: rng.randrange(200, 600)]
        + [rng.randrange(5, 500) for _ in range(rng.randrange(5, 100))]
        for _ in range(12)
    ]


@pytest.fixture(scope="module")
def served(model_folder, tmp_path_factory):
    def serve(name, rounds, scheduler=None, **arguments):
        job = Job(MODEL, str(model_folder(MODEL)), rounds, scheduler, POOL | arguments)
        return engine.run(job, tmp_path_factory.mktemp(name))

    once = Round(prompts())
    spoilt = Round(prompts(), spoil="zero")
    return {
        "reference": serve("reference", [once], enable_prefix_caching=False, **FP8),
        "compressed": serve("compressed", [once, once, spoilt], PLANNED, **PLANNING, **FP8),
        "plain": serve("plain", [once], PLANNED, **PLANNING),
    }


def num_different(served, name, number=0):
    mine, reference = served[name]["rounds"][number]["tokens"], served["reference"]["rounds"][0]["tokens"]
    return sum(one != other for one, other in zip(mine, reference, strict=True))


def test_hits_answer_as_prompts_computed_anew_do(served):
    compressed = served["compressed"]["rounds"]
    assert served["compressed"]["scheduler"] == "PlannedScheduler"
    assert [each["problem"] for each in compressed] == [None] * 3
    print(f"cached: {[sum(each['cached']) for each in compressed]}")
    assert sum(compressed[1]["cached"]) > 2000
    assert num_different(served, "compressed") == num_different(served, "compressed", 1) == 0


def test_the_controls_a_lost_state_shows_and_so_does_the_compression(served):
    print(f"{num_different(served, 'compressed', 2)} of 12 answers differ where states were lost")
    assert num_different(served, "compressed", 2) > 0
    assert num_different(served, "plain") > 0


def test_a_checkpoint_costs_as_many_more_tokens_as_a_block_holds_more(served):
    # A checkpoint takes a block of each group of states, so its price in tokens is a block's, times those.
    plain, compressed = served["plain"]["block"], served["compressed"]["block"]
    print(f"a block holds {plain} tokens in fp32 and {compressed} in fp8")
    assert compressed >= 2.5 * plain
