"""What engines have in common that keep states where messages end, at any token."""

from milepost.recommend.situation import Situation

__all__ = ["NOT_SIMULATED", "token_grid"]

NOT_SIMULATED = (
    "not simulated: it keeps states where messages end, and this log does not say where that is; give a log "
    "of request bodies with --tokenizer"
)
# Fine enough to stand for any token, coarse enough to be quick.
_GRID_TOKENS = 16


def token_grid(situation: Situation) -> int:
    """Return the positions that stand for any token of the log."""
    return situation.key_tokens if situation.key_tokens > 1 else _GRID_TOKENS
