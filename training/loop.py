"""The training itself: what a step is, how lengths grow, how well it does."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import Qwen3_5ForCausalLM

from milepost.embedded.questions import KINDS
from training.attention_hint import attention_hint
from training.lost_states import lost_states, unlikelihood
from training.sequences import ANSWER, TEXT, SequenceMaker, TrainingBatch

__all__ = ["Plan", "Progress", "train"]

# What a token of text counts for beside a token of an answer: enough to learn to read.
_TEXT_WEIGHT = 0.15
# And what the hint to the attention counts for.
_HINT_WEIGHT = 0.2
# Every so many steps the same sequences are read once more with lost states.
_LOST_EVERY = 2
# Sequences twice as long begin at this share of right answers, the mean over their kinds.
_MASTERED = 0.6
_LAST_LENGTH = 8_192
_NUM_ANSWERS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long and how fast to learn."""

    num_steps: int
    decay_steps: int
    seed: int
    learning_rate: float
    warmup_steps: int = 50
    first_length: int = 256
    longest: int = 256
    tokens_per_step: int = 4_096
    evaluate_every: int = 50

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, from 1: up, level, and down to nothing."""
        left = (self.num_steps - step + 1) / max(1, self.decay_steps)
        return self.learning_rate * min(1.0, step / self.warmup_steps, left)


@dataclass(frozen=True, slots=True)
class Progress:
    """What a step showed.

    Attributes:
        step: From 1.
        num_tokens: Read so far.
        length: Of this step's sequences.
        text_loss: Nats a token of documents and plain text.
        answer_loss: Nats a token of answers.
        hint_loss: See ``attention_hint``.
        lost_loss: What it still knows from lost states (``unlikelihood``); None where it was not asked.
        accuracy: Where it was measured: the share of right answers about held-out documents, by kind.
    """

    step: int
    num_tokens: int
    length: int
    text_loss: float
    answer_loss: float
    hint_loss: float
    lost_loss: float | None
    accuracy: dict[str, float] | None


def train(
    model: Qwen3_5ForCausalLM, learned: SequenceMaker, held_out: SequenceMaker, plan: Plan
) -> Iterator[Progress]:
    """Train the model in place, and yield what every step showed."""
    rng = random.Random(plan.seed)
    optimizers = _optimizers(model, plan.learning_rate)
    longest, num_tokens = max(plan.first_length, plan.longest), 0
    for step in range(1, plan.num_steps + 1):
        length = rng.choice(_lengths(plan.first_length, longest))
        batch = learned.batch(max(1, plan.tokens_per_step // length), length)
        losses = _learn(model, batch)
        lost_loss = _unlearn(model, batch) if step % _LOST_EVERY == 0 else None
        _step(model, optimizers, rate=plan.rate(step))
        num_tokens += batch.tokens.size
        accuracy = None
        if step % plan.evaluate_every == 0:
            accuracy = _accuracy(model, held_out, longest, tokens_at_once=plan.tokens_per_step)
            if np.mean(list(accuracy.values())) > _MASTERED:
                longest = min(2 * longest, _LAST_LENGTH)
        yield Progress(step, num_tokens, length, *losses, lost_loss, accuracy)


def _lengths(first: int, last: int) -> list[int]:
    return list(takewhile(lambda length: length <= last, (first << doublings for doublings in range(32))))


def _learn(model: Qwen3_5ForCausalLM, batch: TrainingBatch) -> tuple[float, float, float]:
    """Add the gradient of text, answers and the hint; return their losses."""
    tokens = torch.from_numpy(batch.tokens)
    with attention_hint(model) as hint:
        logits = _logits(model, tokens)[:, :-1]
    losses = cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten(), reduction="none")
    parts = torch.from_numpy(batch.parts)[:, 1:].flatten()
    text_loss = losses[parts == TEXT].mean()
    answers = losses[parts >= ANSWER]
    # A batch of plain text alone has no answer.
    answer_loss = answers.sum() / max(1, answers.numel())
    hint_loss = hint.loss(tokens, torch.from_numpy(batch.parts) >= ANSWER)
    (answer_loss + _TEXT_WEIGHT * text_loss + _HINT_WEIGHT * hint_loss).backward()
    return text_loss.item(), answer_loss.item(), hint_loss.item()


def _unlearn(model: Qwen3_5ForCausalLM, batch: TrainingBatch) -> float | None:
    """Add the gradient of knowing what states told once they are lost; return that loss."""
    is_found = torch.from_numpy(batch.is_found)[:, 1:]
    if not is_found.any():
        return None
    tokens = torch.from_numpy(batch.tokens)
    with lost_states(torch.from_numpy(batch.document_ends)):
        logits = _logits(model, tokens)[:, :-1]
    loss = unlikelihood(logits[is_found], tokens[:, 1:][is_found])
    loss.backward()
    return loss.item()


def _step(model: Qwen3_5ForCausalLM, optimizers: list[torch.optim.Optimizer], *, rate: float) -> None:
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


@torch.no_grad()
def _accuracy(
    model: Qwen3_5ForCausalLM, maker: SequenceMaker, length: int, *, tokens_at_once: int
) -> dict[str, float]:
    """Return the share of answers, by kind, of which every token is the likeliest one."""
    right: dict[str, list[bool]] = {kind: [] for kind in KINDS}
    model.eval()
    while sum(map(len, right.values())) < _NUM_ANSWERS:
        batch = maker.batch(max(1, tokens_at_once // length), length, plain_share=0.0)
        hits = (
            _logits(model, torch.from_numpy(batch.tokens))[:, :-1].argmax(-1).numpy() == batch.tokens[:, 1:]
        )
        for row in range(len(hits)):
            for kind, is_right in batch.judged(row, hits[row]):
                right[kind].append(is_right)
    model.train()
    return {kind: float(np.mean(found)) for kind, found in right.items() if found}


def _logits(model: Qwen3_5ForCausalLM, tokens: torch.Tensor) -> torch.Tensor:
    """Return logits of shape ``[num_sequences, length, vocabulary]``, the matrices multiplied in bfloat16."""
    with torch.autocast("cpu", torch.bfloat16):
        logits: torch.Tensor = model(input_ids=tokens, use_cache=False).logits
    return logits


def _optimizers(model: Qwen3_5ForCausalLM, learning_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, AdamW for embeddings, gates and norms (Jordan et al., 2024)."""
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        (matrices if parameter.ndim == 2 and "embed" not in name else others).append(parameter)
    return [
        torch.optim.Muon(
            matrices, lr=learning_rate, momentum=0.95, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0, foreach=True),
    ]
