"""How well a model does on text that it has never seen: ``python -m training.measure FOLDER``.

Prints the tables of the model's card: losses beside those of counted tokens, and right answers beside those
from a zeroed state. In the library's own layers and float32, as anybody would run it.
"""

import argparse
import math
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen3_5ForCausalLM

from milepost.embedded.questions import KINDS
from milepost.engines.transformers.driver import TransformersDriver
from milepost.engines.transformers.snapshot import zero_state
from training.corpus import Corpus
from training.sequences import TEXT, SequenceMaker, TrainingBatch

_SEED = 1
_LENGTHS = (1_024, 4_096, 8_192)
_TEXT_WINDOWS, _TEXT_LENGTH = 24, 2_048


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="python -m training.measure", description=__doc__)
    parser.add_argument("model", type=Path, help="Folder of the model.")
    parser.add_argument("--answers", type=int, default=200, help="Answers of each length (default: 200).")
    arguments = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = Qwen3_5ForCausalLM.from_pretrained(arguments.model, dtype="float32").eval()
    _print_losses(model, tokenizer)
    print(f"{'tokens':>8} {'':14}" + "".join(f"{kind:>16}" for kind in KINDS) + f"{'all':>16}")
    for length in _LENGTHS:
        for name, is_lost in (("", False), ("zeroed state", True)):
            maker = SequenceMaker(Corpus(held_out=True), tokenizer, seed=_SEED)
            right = _right_answers(model, maker, length, num_answers=arguments.answers, is_lost=is_lost)
            cells = [right[kind] for kind in KINDS] + [[each for found in right.values() for each in found]]
            shown = "".join(f"{sum(cell):>11}/{len(cell):<4}" for cell in cells)
            print(f"{length:>8,} {name:14}{shown}", flush=True)


def _print_losses(model: Qwen3_5ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    batch = SequenceMaker(Corpus(held_out=True), tokenizer, seed=_SEED).batch(
        _TEXT_WINDOWS, _TEXT_LENGTH, plain_share=1.0
    )
    bytes_per_token = len(tokenizer.decode(batch.tokens.flatten().tolist()).encode()) / batch.tokens.size
    losses = {"embedded model": np.mean([_text_loss(model, row) for row in batch.tokens])}
    learned = SequenceMaker(Corpus(held_out=False), tokenizer, seed=_SEED).batch(400, 2_048, plain_share=1.0)
    losses |= _counted_losses(learned.tokens, batch.tokens, len(tokenizer))
    print(f"{'held-out text':24} nats a token  bits a byte   ({bytes_per_token:.2f} bytes a token)")
    for name, loss in losses.items():
        print(f"{name:24} {loss:12.3f} {loss / math.log(2) / bytes_per_token:12.3f}", flush=True)


@torch.no_grad()
def _text_loss(model: Qwen3_5ForCausalLM, tokens: np.ndarray) -> float:
    ids = torch.from_numpy(tokens)[None]
    return float(cross_entropy(model(input_ids=ids, use_cache=False).logits[0, :-1], ids[0, 1:]))


def _counted_losses(learned: np.ndarray, held_out: np.ndarray, vocabulary: int) -> dict[str, float]:
    """Return the losses of counted tokens, and of pairs that fall back on them (Witten and Bell, 1991)."""
    single = np.bincount(learned.flatten(), minlength=vocabulary) + 1.0
    single /= single.sum()
    pairs = Counter(pair for row in learned for pair in pairwise(row.tolist()))
    after: Counter[int] = Counter()
    kinds: Counter[int] = Counter()
    for (first, _), times in pairs.items():
        after[first] += times
        kinds[first] += 1
    seen = list(_pairs(held_out))
    alone = [single[token] for _, token in seen]
    joint = [
        (pairs[first, token] + kinds[first] * single[token]) / (after[first] + kinds[first])
        if after[first]
        else single[token]
        for first, token in seen
    ]
    return {
        "counted pairs": float(-np.log(joint).mean()),
        "counted tokens": float(-np.log(alone).mean()),
        "chance": math.log(vocabulary),
    }


def _pairs(rows: np.ndarray) -> Iterator[tuple[int, int]]:
    for row in rows:
        yield from pairwise(row.tolist())


@torch.no_grad()
def _right_answers(
    model: Qwen3_5ForCausalLM, maker: SequenceMaker, length: int, *, num_answers: int, is_lost: bool
) -> dict[str, list[bool]]:
    """Return, by kind, whether each answer would be given token by token."""
    right: dict[str, list[bool]] = {kind: [] for kind in KINDS}
    while sum(map(len, right.values())) < num_answers:
        batch = maker.batch(1, length, plain_share=0.0)
        hits = likeliest(model, batch, is_lost=is_lost) == batch.tokens[0, 1:]
        for kind, is_right in batch.judged(0, hits):
            right[kind].append(is_right)
    return right


def likeliest(model: Qwen3_5ForCausalLM, batch: TrainingBatch, *, is_lost: bool) -> np.ndarray:
    """Return the likeliest token after each but the last; the state after the document may be lost."""
    tokens = torch.from_numpy(batch.tokens[0])
    driver = TransformersDriver(model)
    live = driver.start()
    end = int(np.flatnonzero(batch.parts[0] == TEXT)[-1]) + 1
    first = driver.advance_all(live, tokens[:end])
    if is_lost:
        state, kv = zero_state(driver.capture(live)), [driver.kv(live, 0, end)]
        live = driver.restore(state, kv, position=end, num_tokens=tokens.numel())
    second = driver.advance_all(live, tokens[end:])
    likeliest: np.ndarray = torch.cat((first, second))[:-1].argmax(-1).numpy()
    return likeliest


if __name__ == "__main__":
    main()
