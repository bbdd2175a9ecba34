"""The models that are compared on, and a row for each rival on each."""

import sys
from pathlib import Path

from benchmarks.lossy.divergence import Divergence, measure_divergence
from benchmarks.lossy.prompts import held_out_documents, question_prompts, random_prompts
from benchmarks.lossy.rivals import CONTROL, EXACT, rivals
from benchmarks.lossy.traffic import exact_engine
from benchmarks.printing import Row
from milepost.embedded import EMBEDDED, embedded_folder
from milepost.engines.opening import serve_model
from milepost.engines.served_model import ServedModel
from milepost.engines.transformers.families import driver_for

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "tests"))

from families import tiny_model

__all__ = ["FAMILIES", "divergence_rows", "open_embedded"]

FAMILIES = (EMBEDDED, "qwen3_5", "kimi_linear", "falcon_h1", "granitemoehybrid", "jamba", "lfm2")
"""The embedded model, and tiny random ones: gated delta rule, KDA, Mamba-2 beside attention in each layer and
between layers of it, Mamba-1, and short convolutions, which have no recurrent state."""

_GRID, _PIECE_TOKENS, _ANSWER_TOKENS = 64, 256, 8
# Random models forget in tens of tokens.
_REPLAYED, _REPLAYED_RANDOM = (64, 256, 1_024), (16, 64, 256)
_SEED = 1
# Whatever a lost state does less than, none of the numbers above it can be trusted.
_CONTROL_KL, _CONTROL_SHARE = 0.01, 0.02


def open_embedded() -> ServedModel:
    """Return the embedded model, in strict numerics, cut as finely as it can be."""
    return serve_model(
        embedded_folder(),
        numerics="strict",
        segment_tokens=_GRID,
        tokenizer=None,
        dtype="auto",
        device="cpu",
        revision=None,
    )


def divergence_rows(family: str, num_prompts: int, *, replayed: list[int]) -> list[Row]:
    """Return a row for each rival; ``replayed`` are lengths of the replay on the embedded model beside the
    usual ones.
    """
    lengths: list[int] = list(_REPLAYED_RANDOM)
    if family == EMBEDDED:
        lengths = sorted({*_REPLAYED, *replayed})
        served = open_embedded()
        driver = served.driver
        encode = exact_engine(served, capacity_bytes=2**30, policy="none").encode
        prompts = question_prompts(held_out_documents(seed=_SEED), encode, count=num_prompts, grid=_GRID)
    else:
        driver = driver_for(tiny_model(family))
        prompts = random_prompts(
            count=num_prompts, grid=_GRID, vocabulary_size=driver.vocabulary_size, seed=_SEED
        )
    found = measure_divergence(
        driver, prompts, rivals(lengths), piece_tokens=_PIECE_TOKENS, answer_tokens=_ANSWER_TOKENS
    )
    return [_row(family, name, divergence) for name, divergence in found.items()]


def _row(family: str, name: str, its: Divergence) -> Row:
    target, reached = "reported", True
    if name == EXACT:
        target, reached = "0, every bit", its.num_inexact == 0
    if name == CONTROL:
        target = f">= {_CONTROL_SHARE:.0%}, KL >= {_CONTROL_KL}"
        reached = its.differing_share >= _CONTROL_SHARE and its.kl_mean >= _CONTROL_KL
    return Row(
        name=f"{family}, {name}",
        measured=f"differing tokens {its.differing_share:.2%}, KL {its.kl_mean:.1e} (most "
        f"{its.kl_most:.1e}), answers {its.num_answers_differing}/{its.num_prompts}, "
        f"inexact {its.num_inexact}",
        target=target,
        reached=reached,
        numbers={
            "prompts": its.num_prompts,
            "tokens": its.num_tokens,
            "differing_tokens": its.num_differing,
            "differing_share": its.differing_share,
            "answers_differing": its.num_answers_differing,
            "inexact_prompts": its.num_inexact,
            "kl_mean": its.kl_mean,
            "kl_most": its.kl_most,
        },
    )
