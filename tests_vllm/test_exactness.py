"""Answers are those of stock vLLM, token for token: whatever is reused, evicted, preempted or batched.

The block asked for is 64 tokens, so chunks end on the grid of the kernels wherever they end, and one request
after the other gives the same tokens. In a batch the kernels' shapes hang on who else is in it, and near-ties
flip between two runs of stock vLLM with different budgets as well: that pair is the control.

With ``--full`` every model answers 500 prompts and more; without, a fifth of that.
"""

import random

import engine
import pytest
from benchmarks.vllm.models import MODELS
from engine import PLANNED, Job, Round

# So few blocks that hardly anything survives, and that six long answers outgrow them.
POOLS = {"qwen3-next": 26, "qwen3.5": 26, "lfm2-moe": 60, "mamba2": 9, "falcon-h1": 26}
OTHER_POOL = 34


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
    scale = 5 if is_full else 1
    return [
        Round(prompts(40 * scale, seed=1)),
        Round(prompts(50 * scale, seed=2), is_batched=True),
        Round(prompts(10 * scale, seed=3, longest=700), max_tokens=250, is_batched=True),
    ]


def arguments(model, **others):
    pool = POOLS.get(model, OTHER_POOL)
    return {"num_gpu_blocks_override": pool, "max_num_seqs": 6, "max_num_batched_tokens": 2048} | others


def num_different(ours, theirs) -> int:
    return sum(a != b for a, b in zip(ours["tokens"], theirs["tokens"], strict=True))


def skip_without_torchvision(name):
    if MODELS[name].needs_torchvision:
        pytest.importorskip("torchvision", reason="vLLM imports torchvision for this model")


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    skip_without_torchvision(request.param)
    return request.param


@pytest.fixture(scope="module")
def stock(model, model_folder, tmp_path_factory, is_full):
    job = Job(model, str(model_folder(model)), rounds(is_full), arguments=arguments(model))
    return engine.run(job, tmp_path_factory.mktemp("stock"))


@pytest.fixture(scope="module")
def control(model, model_folder, tmp_path_factory, is_full):
    """Stock vLLM again, with another budget: as much as two runs differ anyway."""
    others = arguments(model, max_num_seqs=5, max_num_batched_tokens=1024)
    job = Job(model, str(model_folder(model)), rounds(is_full), arguments=others)
    return engine.run(job, tmp_path_factory.mktemp("control"))


@pytest.mark.parametrize("unit", [None, 64], ids=["blocks", "unit64"])
def test_answers_are_those_of_stock_vllm(unit, model, model_folder, stock, control, tmp_path, is_full):
    if unit and model == "mamba2":
        pytest.skip("vLLM takes no match unit for a model with one kind of cache")
    if unit and model not in ("qwen3-next", "falcon-h1") and not is_full:
        pytest.skip("with --full")
    others = {"prefix_match_unit": unit} if unit else {}
    job = Job(model, str(model_folder(model)), rounds(is_full), PLANNED, arguments(model, **others))
    planned = engine.run(job, tmp_path)
    assert (planned["scheduler"], stock["scheduler"]) == ("PlannedScheduler", "Scheduler")
    for ours, theirs in zip(planned["rounds"], stock["rounds"], strict=True):
        assert (ours["problem"], theirs["problem"]) == (None, None)
    one_by_one, *batched = zip(planned["rounds"], stock["rounds"], control["rounds"], strict=True)
    assert num_different(*one_by_one[:2]) == 0
    assert num_different(*one_by_one[1:]) == 0
    for ours, theirs, again in batched:
        num, flips, flips_of_stock = (
            len(ours["tokens"]),
            num_different(ours, theirs),
            num_different(again, theirs),
        )
        print(
            f"{model}, unit {unit}: {flips} of {num} batched answers differ, {flips_of_stock} in the control"
        )
        assert flips <= 1.3 * flips_of_stock + 0.05 * num
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
    assert num_different(spoilt, first) > num_resumed / 2
