"""Presence and frequency penalties count the answer and nothing else."""

import torch

from milepost.engines.penalties import AnswerPenalties


def penalised(ids, *, num_prompt_tokens, presence=0.0, frequency=0.0):
    processor = AnswerPenalties(presence=presence, frequency=frequency, num_prompt_tokens=num_prompt_tokens)
    scores = torch.zeros(1, 6)
    changed = processor(torch.tensor([ids]), scores)
    assert not scores.any(), "the scores that were given stay as they are"
    return changed[0].tolist()


def test_frequency_counts_and_presence_does_not():
    ids = [5, 5, 1, 2, 2, 2]
    assert penalised(ids, num_prompt_tokens=2, frequency=0.5) == [0, -0.5, -1.5, 0, 0, 0]
    assert penalised(ids, num_prompt_tokens=2, presence=0.5) == [0, -0.5, -0.5, 0, 0, 0]
    assert penalised(ids, num_prompt_tokens=2, presence=0.5, frequency=-1.0) == [0, 0.5, 2.5, 0, 0, 0]


def test_the_prompt_counts_for_neither():
    assert penalised([1, 2, 3], num_prompt_tokens=3, presence=1.0, frequency=1.0) == [0] * 6
