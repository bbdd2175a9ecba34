"""Answers are those of stock vLLM, token for token: whatever is reused, evicted, preempted or batched.

The reference is stock vLLM without prefix caching, one request after the other: nothing is reused, preempted
or batched. The block asked for is 64 tokens, so chunks end on the grid of the kernels wherever they end. With
fp32 every answer must then be the reference's, in a batch and after a preemption too.

Two models run in bf16, where near-ties flip with the shape of a batch, and what was generated before a
preemption is computed again by other kernels. Stock vLLM with prefix caching is the control there: it flips
as often against the reference. (Not against each other: what flips is much the same in two runs that preempt
at the same places.)

With ``--full`` every model answers 500 prompts and more; without, an eighth of that.
"""

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import engine
import pytest
import vllm
from benchmarks.vllm.models import MODELS
from engine import PLANNED, Job, Round
from packaging.version import Version

pytestmark = pytest.mark.kernels

# So few blocks that hardly anything survives, and that six long answers outgrow them.
POOLS = {"qwen3-next": 26, "qwen3.5": 26, "lfm2-moe": 60, "mamba2": 7, "falcon-h1": 26}
OTHER_POOL = 34
WITH_UNIT = ("qwen3-next", "falcon-h1")


def prompts(num, *, seed, longest=1500):
    """Return prompts that share beginnings with others."""
    rng = random.Random(seed)
    documents = [[rng.randrange(5, 500) for _ in range(longest - 100)] for _ in range(4)]
    depths = [rng.randrange(200, longest - 100) for _ in range(5)]
    return [
        rng.choice(documents)[: rng.choice(depths) + rng.randrange(-40, 40)]
        + [rng.randrange(5, 500) for _ in range(rng.randrange(5, 100))]
        for _ in range(num)
    ]


def rounds(is_full):
    scale = 8 if is_full else 1
    return [
        Round(prompts(24 * scale, seed=1)),
        Round(prompts(36 * scale, seed=2), is_batched=True),
        # One after the other, the reference takes a step for each token: these are most of all that is done.
        Round(prompts(7 * scale, seed=3, longest=700), max_tokens=160, is_batched=True),
    ]


def arguments(model, **others):
    pool = POOLS.get(model, OTHER_POOL)
    return {"num_gpu_blocks_override": pool, "max_num_seqs": 6, "max_num_batched_tokens": 2048} | others


def tokens(answer):
    return [each["tokens"] for each in answer["rounds"]]


def num_different(ours, theirs) -> int:
    return sum(a != b for a, b in zip(ours, theirs, strict=True))


def skip_without_kernels(name, error):
    """Older CPU builds of vLLM lack kernels that some models need in fp32, whatever the scheduler."""
    if Version(vllm.__version__) >= Version("0.32"):
        return
    for why in ("not implemented for 'Float'", "causal_conv1d_weight_pack: support only width of 4"):
        if why in str(error):
            pytest.skip(f"stock vLLM {vllm.__version__} does not run {name} on this CPU: {why}")


def skip_without_torchvision(name):
    if MODELS[name].needs_torchvision:
        pytest.importorskip("torchvision", reason="vLLM imports torchvision for this model")


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    skip_without_torchvision(request.param)
    return request.param


@pytest.fixture(scope="module")
def served(model, model_folder, tmp_path_factory, is_full):
    """The same prompts by stock vLLM without a cache, by stock vLLM, and by the plugin; two at a time."""
    mixed = rounds(is_full)
    one_by_one = [replace(each, is_batched=False) for each in mixed]

    def serve(name, scheduler=None, all_rounds=mixed, **others):
        job = Job(model, str(model_folder(model)), all_rounds, scheduler, arguments(model, **others))
        return engine.run(job, tmp_path_factory.mktemp(name))

    with ThreadPoolExecutor(2) as pool:
        running = {
            "reference": pool.submit(serve, "reference", all_rounds=one_by_one, enable_prefix_caching=False),
            "stock": pool.submit(serve, "stock"),
            "blocks": pool.submit(serve, "blocks", PLANNED),
        }
        if model in WITH_UNIT or (is_full and model != "mamba2"):
            running["unit64"] = pool.submit(serve, "unit64", PLANNED, prefix_match_unit=64)
    try:
        running["reference"].result()
    except RuntimeError as error:
        skip_without_kernels(model, error)
        raise
    return {name: answer.result() for name, answer in running.items()}


@pytest.mark.parametrize("kind", ["blocks", "unit64"])
def test_answers_are_those_without_a_cache(kind, model, served):
    if kind not in served:
        pytest.skip("with --full; vLLM takes no match unit for a model with one kind of cache")
    stock, planned = served["stock"], served[kind]
    assert (planned["scheduler"], stock["scheduler"]) == ("PlannedScheduler", "Scheduler")
    assert [each["problem"] for each in planned["rounds"] + stock["rounds"]] == [None] * 6
    reference = tokens(served["reference"])
    flips, flips_of_stock = (
        [num_different(*each) for each in zip(tokens(answer), reference, strict=True)]
        for answer in (planned, stock)
    )
    print(f"{model}, {kind}: {flips} answers of a round differ, {flips_of_stock} from stock vLLM")
    if MODELS[model].dtype == "float32":
        assert flips == flips_of_stock == [0, 0, 0]
    else:
        assert flips[0] == flips_of_stock[0] == 0
        num_batched = sum(len(each) for each in reference[1:])
        assert sum(flips) <= 1.3 * sum(flips_of_stock) + 0.05 * num_batched + 1
    assert planned["rounds"][-1]["num_preemptions"] > 0
    assert planned["num_evictions"] > 0
    assert sum(planned["rounds"][0]["cached"]) > 0
    assert planned["counts"]["kept"] > 0


@pytest.mark.parametrize("how", ["zero", "mix"])
def test_answers_hang_on_the_states_that_are_kept(how, model_folder, tmp_path):
    asked = [prompt[:700] for prompt in prompts(8, seed=5)]
    job = Job(
        "qwen3-next",
        str(model_folder("qwen3-next")),
        [Round(asked), Round(asked), Round(asked, spoil=how)],
        PLANNED,
        {"num_gpu_blocks_override": 300},
    )
    first, again, spoilt = engine.run(job, tmp_path)["rounds"]
    assert sum(again["cached"]) > 0
    assert again["tokens"] == first["tokens"]
    num_resumed = sum(cached > 0 for cached in spoilt["cached"])
    assert num_different(spoilt["tokens"], first["tokens"]) > num_resumed / 2
