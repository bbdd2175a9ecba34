"""How far apart two rows of logits are, in a measure that means the same for every model."""

import torch

__all__ = ["logits_distance"]


def logits_distance(logits: torch.Tensor, reference: torch.Tensor) -> float:
    """Norm of the difference over the norm of the centred reference; masked entries (-inf) aside.

    0 for equal ones, about 1.4 for unrelated ones.
    """
    logits, reference = logits.float(), reference.float()
    kept = ~(logits.isneginf() & reference.isneginf())
    reference = reference[kept]
    return float((logits[kept] - reference).norm() / (reference - reference.mean()).norm())
