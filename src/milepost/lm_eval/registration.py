"""Making the model known to the harness, which has no entry points to find it by."""

from collections.abc import Callable
from typing import Any

# Read before anything is registered: the harness reads its own models only while it knows none.
import lm_eval.models  # noqa: F401
from lm_eval.api.registry import model_registry

from milepost.lm_eval.model import MilepostLM

__all__ = ["register"]


def register(*, on_open: Callable[[MilepostLM], None] | None = None) -> None:
    """Make ``milepost`` a model of the harness in this process. Harmless when done twice.

    Args:
        on_open: Told of each that the harness opens; only with the first call in a process.
    """
    if on_open is None:
        if "milepost" not in model_registry:
            model_registry.register("milepost", target=MilepostLM)
        return
    told = on_open

    class Announced(MilepostLM):
        """One that says that it was opened."""

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            told(self)

    model_registry.register("milepost", target=Announced)
