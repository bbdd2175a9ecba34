"""The model that comes with the package: a small trained hybrid that answers questions about a document.

Where it is, what it was trained to answer, and the text it has never seen. Importing this loads no model and
no tensors. ``model/README.md`` is its card; ``python -m training`` is how it came to be.
"""

from pathlib import Path

__all__ = ["EMBEDDED", "embedded_folder", "resolve_model"]

EMBEDDED = "embedded"


def embedded_folder() -> Path:
    """Return the model's folder, which opens like any other, as with ``AutoModelForCausalLM``."""
    return Path(__file__).parent / "model"


def resolve_model(name: str) -> str:
    """Return what to open for a model's name: for ``embedded`` its folder, for all else the name itself."""
    return str(embedded_folder()) if name == EMBEDDED else name
