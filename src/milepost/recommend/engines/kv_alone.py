"""Models without recurrent states: engines reuse their KV as far as prompts are equal; nothing is placed."""

from milepost.recommend.engine import Candidate
from milepost.recommend.situation import Situation

__all__ = ["KV_ALONE", "kv_alone"]

KV_ALONE = (
    "nothing to set for states: the model has no recurrent ones, and its KV is reused as far as prompts are "
    "equal"
)


def kv_alone(situation: Situation) -> Candidate:
    """Return what an engine does that reuses KV wherever prompts diverge; the least recently used goes."""
    return Candidate(policy="tail+junction", grid=situation.grid, footprint=situation.footprint)
