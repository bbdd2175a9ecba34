"""What several replicas have learned of their traffic, as one: a warm start for the next replica.

Law
    Each replica serves a share of the same kind of traffic. What is merged is what a policy would know that
    was told of all their requests:

    * Uses and exposure of prompts and branch points by class and age, and returns by class, are counts: they
      are added up. A policy told of one replica's requests and then, with none of the prompts left, of the
      next one's has the same counts to the last one. Ages stay those of a replica's own requests.
    * Where requests diverge is remembered of the last hundred sharings or so, by counts that fade. They are
      added up, times what one policy would remember of as many sharings: an interleaving of the replicas'
      latest traffic. Its predictions are those of a policy told of both in turn, up to what fading weighs
      differently (the tests say how closely).
    * The price of a byte is the mean.

    A replica counts for what its file remembers, so merging what was merged before with one of its parts
    counts that part twice.
"""

from collections.abc import Sequence
from pathlib import Path

from milepost.errors import ConfigurationError
from milepost.policies.base import CachePolicy, Lessons
from milepost.policies.learned import learned
from milepost.policies.lessons_file import load_lessons, save_lessons

__all__ = ["merge_lessons"]


def merge_lessons(paths: Sequence[Path], output: Path) -> CachePolicy:
    """Write what the files of ``paths`` hold to ``output``, as one; return a policy that has learned it.

    Raises:
        ConfigurationError: a file is named twice, is no file of lessons, or was learned in another layout
            than the first; or ``output`` is one of them, or another kind of file. Nothing is written.
        OSError: a file cannot be read or written.

    Complexity: O(files).
    """
    if not paths:
        raise ConfigurationError("there is nothing to merge; give the files that the replicas have saved")
    _require_distinct(paths, output)
    if output.exists():
        # What it holds is replaced, so it had better be of this kind.
        _loaded(output)
    parts = [_lessons_of(path) for path in paths]
    layout = _layout_of(parts[0], paths[0])
    for path, part in zip(paths[1:], parts[1:], strict=True):
        if (its := _layout_of(part, path)) != layout:
            raise ConfigurationError(
                f"{path} was learned with {_in_words(its)}, and {paths[0]} with {_in_words(layout)}; depths "
                "and worths of the one say nothing of the other: merge files of one model and one grid"
            )
    merged = learned()
    assert merged.lessons is not None
    merged.lessons.restore(merged.lessons.merge([part.export() for part in parts]))
    save_lessons(merged, output)
    return merged


def _loaded(path: Path) -> CachePolicy:
    policy = learned()
    load_lessons(policy, path)
    return policy


def _lessons_of(path: Path) -> Lessons:
    lessons = _loaded(path).lessons
    assert lessons is not None
    return lessons


def _require_distinct(paths: Sequence[Path], output: Path) -> None:
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise ConfigurationError(f"{path} is given twice and would count double; give each file once")
        seen.add(path.resolve())
    if output.resolve() in seen:
        raise ConfigurationError(
            f"{output} is among the files to merge and would count double the next time; write to another one"
        )


def _layout_of(lessons: Lessons, path: Path) -> tuple[int, int]:
    """Return the only layout that ``lessons`` were learned in."""
    if not lessons.layouts:
        raise ConfigurationError(
            f"{path} does not tell the grid that it was learned with, since an older version saved it; let "
            "its replica go on from it and save with this version"
        )
    if len(lessons.layouts) > 1:
        raise ConfigurationError(
            f"{path} was learned with {' and with '.join(map(_in_words, lessons.layouts))}; only what was "
            "learned with one of them can be merged: let its replica start anew"
        )
    return lessons.layouts[0]


def _in_words(layout: tuple[int, int]) -> str:
    grid_tokens, checkpoint_bytes = layout
    return f"a grid of {grid_tokens:,} tokens and checkpoints of {checkpoint_bytes:,} bytes"
