"""A hundred small steps on made-up text, whose losses are kept: ``python -m training.curve > curve.json``.

The test of the training compares with them. The text is made up here, since Python's own differs between its
releases; all else is the training's: questions, sequences, layers, optimizers, schedule.
"""

import json
import random
from pathlib import Path

import torch
from transformers import AutoTokenizer

from milepost.embedded import embedded_folder
from training.architecture import new_model
from training.loop import Plan, train
from training.quick_layers import quick_layers
from training.sequences import SequenceMaker

__all__ = ["CURVE", "PLAN", "MadeUpText", "answer_losses"]

CURVE = Path(__file__).parent / "curve.json"
PLAN = Plan(
    num_steps=100,
    warmup_steps=10,
    decay_steps=20,
    learning_rate=4e-3,
    first_length=128,
    tokens_per_step=512,
    evaluate_every=1_000,
    seed=3,
)
_STEPS_A_POINT = 10
_WORDS = ("parties", "agree", "clause", "contract", "holds", "year", "item", "longer", "nobody", "before")


class MadeUpText:
    """Lines of a few words, in place of a corpus."""

    def window(self, num_characters: int, *, rng: random.Random) -> str:
        """Return at most so many characters of whole lines."""
        lines: list[str] = []
        while sum(map(len, lines)) + len(lines) < num_characters - 60:
            words = rng.choices(_WORDS, k=rng.randrange(4, 9))
            lines.append(f"Clause {rng.randrange(1000)}: {' '.join(words)}.")
        return "\n".join(lines)


def answer_losses(plan: Plan = PLAN) -> list[float]:
    """Return the mean loss of answers over every ten steps. Some twenty seconds."""
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
    model = new_model(vocab_size=len(tokenizer), end_token=tokenizer.eos_token_id, seed=plan.seed).train()
    learned, unused = (SequenceMaker(MadeUpText(), tokenizer, seed=plan.seed) for _ in range(2))
    with quick_layers():
        losses = [progress.answer_loss for progress in train(model, learned, unused, plan)]
    points = range(0, len(losses), _STEPS_A_POINT)
    return [round(sum(losses[at : at + _STEPS_A_POINT]) / _STEPS_A_POINT, 4) for at in points]


if __name__ == "__main__":
    print(json.dumps(answer_losses()))
