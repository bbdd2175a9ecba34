"""``milepost demo``."""

import json
from pathlib import Path
from typing import Annotated

import typer

from milepost.cli.options import Json, Numerics, refuse_missing
from milepost.errors import MilepostError

__all__ = ["demo"]


def demo(
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            callback=refuse_missing,
            help="Folder or hub id of a causal LM. Default: the small trained one in the package.",
        ),
    ] = None,
    documents: Annotated[
        Path | None,
        typer.Option(
            help="A text file, or JSON lines (.jsonl, .gz, .zst) with 'document' and 'questions'. "
            "Default: sources inside Python, with notes between their lines."
        ),
    ] = None,
    max_documents: Annotated[int, typer.Option(min=1, help="Documents to ask about.")] = 6,
    questions: Annotated[int, typer.Option(min=1, help="Questions about each.")] = 5,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="Once for each to compare, the first is the reference; see `milepost policies`. "
            "Default: none, dense:2048, balanced:4, learned."
        ),
    ] = None,
    capacity: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Budget for states and KV of each policy, such as 512MB. "
            "Default: the KV of all documents and two states for each.",
        ),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 16,
    numerics: Numerics = "strict",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for demo.png and demo.json.")] = Path(
        "report"
    ),
    as_json: Json = False,
) -> None:
    """Answer questions about documents under several placement policies, and compare them.

    Every question is answered without a cache, and from dense, balanced and learned checkpoints, all at one
    byte budget. The table shows what each policy held, recomputed and took, and whether its outputs are
    identical.

    Try: `milepost demo --model Qwen/Qwen3.5-0.8B --documents stories.jsonl --capacity 4GiB`
    """
    from rich.console import Console

    from milepost.demo.command import DemoOptions, run_demo

    defaults = DemoOptions()
    options = DemoOptions(
        model=model,
        documents=documents,
        max_documents=max_documents,
        questions=questions,
        policies=tuple(dict.fromkeys(policy)) if policy else defaults.policies,
        capacity=capacity,
        max_new_tokens=max_new_tokens,
        numerics=numerics,
        output=output,
    )
    comparison = run_demo(options, Console(stderr=as_json))
    if as_json:
        print(json.dumps(comparison.as_json()))
    if any(run.num_identical(comparison.runs[0]) < len(run.answers) for run in comparison.runs):
        if numerics == "strict":
            raise MilepostError(
                "outputs differ from the reference in strict mode; this is a defect, please report it"
            )
        Console(stderr=True).print("Fast numerics: some outputs differ from the reference by rounding.")
