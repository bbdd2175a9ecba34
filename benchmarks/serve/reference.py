"""What a model says without a cache."""

from collections.abc import Sequence
from typing import Any

from milepost.embedded import resolve_model
from milepost.engines.engine import Engine

__all__ = ["Reference"]


class Reference:
    """An engine that keeps nothing, and answers greedily."""

    def __init__(self, model: str, *, max_tokens: int) -> None:
        self._engine = Engine.open(resolve_model(model), policy="none", max_running=1)
        self._max_tokens = max_tokens
        self._known: dict[str, str] = {}

    def answer(self, messages: Sequence[dict[str, Any]]) -> str:
        """Return what it says."""
        name = repr(messages)
        if name not in self._known:
            completion = self._engine.generate(messages, max_new_tokens=self._max_tokens, temperature=0.0)
            self._known[name] = completion.text
        return self._known[name]
