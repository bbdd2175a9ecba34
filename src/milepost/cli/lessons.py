"""``milepost lessons``: what replicas have learned of their traffic, shown and merged."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from milepost.cli.command import Command, Group
from milepost.cli.options import Json

if TYPE_CHECKING:
    from milepost.policies import LessonsSummary

__all__ = ["lessons"]

lessons = typer.Typer(
    cls=Group,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Look at what caches have learned of their traffic, or merge it for a replica that starts warm.",
)

LessonsFile = Annotated[
    Path,
    typer.Argument(metavar="FILE", show_default=False, help="What a server or vLLM saved under `learned`."),
]


@lessons.command(cls=Command)
def show(file: LessonsFile, as_json: Json = False) -> None:
    """Say what a file holds: how much traffic it was learned from, how much of that shared a prompt, where
    prompts part, and what memory was worth. It holds no prompt, and nothing of one.

    Try: `milepost lessons show lessons.json`
    """
    from milepost.policies import LessonsSummary, learned, load_lessons

    load_lessons(policy := learned(), file)
    _print(LessonsSummary.of(policy), as_json=as_json)


@lessons.command(cls=Command)
def merge(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", show_default=False, help="What each replica has saved, each once."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE", show_default=False, help="Where to write the merged one."
        ),
    ],
    as_json: Json = False,
) -> None:
    """Merge what several replicas of one model have learned, so that a new one starts from what all of them
    know. Counts are added up; where prompts part is remembered of the latest requests of each; the price of
    memory is the mean. All must have the same model and the same grid. Merge what the replicas saved
    themselves, not what was merged before: that would count double.

    Try: `milepost lessons merge a.json b.json -o all.json`, then give a new vLLM replica
    `--additional-config '{"milepost": {"learned": "all.json"}}'`
    """
    from milepost.policies import LessonsSummary, merge_lessons

    _print(LessonsSummary.of(merge_lessons(files, output)), as_json=as_json)


def _print(summary: "LessonsSummary", *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(summary)))
        return
    for name, value in _in_words(summary).items():
        print(f"{name:22} {value}")


def _in_words(summary: "LessonsSummary") -> dict[str, str]:
    words = {
        "requests": f"{summary.num_requests:,}, {summary.num_overlaps:,} of which told where prompts part",
        "share, lately": f"{summary.sharing_rate:.0%}",
        "part at a distance": f"from the start {summary.from_start_share:.0%}, "
        f"from the end {summary.from_end_share:.0%}",
        "part at a message end": f"{summary.boundary_share:.0%} of those that tell where messages end",
        "returns to a new prompt": f"{summary.returns_per_prompt:.2f}",
        "price of memory": f"{summary.price_per_byte:.3g} per byte"
        if summary.price_per_byte
        else "none: it was ample",
    }
    for grid_tokens, checkpoint_bytes in summary.layouts:
        words["learned with"] = (
            f"{words['learned with']}; " if "learned with" in words else ""
        ) + f"a grid of {grid_tokens:,} tokens, checkpoints of {checkpoint_bytes:,} bytes"
    return words
