"""Configurations that leave out what is the family's default, for footprints, which know few defaults."""

from pathlib import Path

from milepost.engines.transformers.loading import load_config
from milepost.errors import ModelLoadError, UnsupportedModelError
from milepost.footprint.families import footprint_blocks

__all__ = ["completed_config"]


def completed_config(path: str | Path) -> object:
    """Return the configuration at ``path`` as transformers completes it with the defaults of its family; the
    path itself where it cannot, or where a footprint cannot read what it makes of it.
    """
    try:
        completed = load_config(path)
        # The type of numbers may be left out, and is another matter.
        footprint_blocks(completed, dtype="float32")
    except (ModelLoadError, UnsupportedModelError):
        return path
    return completed
