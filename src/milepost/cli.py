"""The ``milepost`` command. Exit codes: 0 done, 1 something was refused, 2 wrong usage, 130 Ctrl-C."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from milepost.errors import MilepostError

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Sparse prefix caching for hybrid and recurrent language models: exact states at a few well-chosen "
    "prompt positions, the same outputs, a fraction of the prefill.",
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Folder or hub id of a causal LM.")]
_POLICIES_HELP = "Placement policy, once for each to compare; the first is the reference. "


@app.command()
def demo(
    model: Annotated[
        str | None,
        typer.Option(help="Folder or hub id of a causal LM. Default: a small one built on the spot."),
    ] = None,
    documents: Annotated[
        Path | None,
        typer.Option(
            help="A text file, or JSON lines (.jsonl, .gz, .zst) with 'document' and 'questions'. "
            "Default: the documentation inside Python."
        ),
    ] = None,
    max_documents: Annotated[int, typer.Option(min=1, help="Documents to ask about.")] = 6,
    questions: Annotated[int, typer.Option(min=1, help="Questions about each.")] = 5,
    policy: Annotated[
        list[str] | None,
        typer.Option(help=_POLICIES_HELP + "Default: none, dense:256, balanced:4, planned."),
    ] = None,
    capacity: Annotated[
        str | None,
        typer.Option(
            help="Budget for states and KV of each policy, such as 512MB. "
            "Default: the KV of all documents and two states for each."
        ),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of each answer.")] = 16,
    numerics: Annotated[str, typer.Option(help="strict (bit for bit) or fast (to rounding).")] = "strict",
    output: Annotated[Path, typer.Option(help="Folder for demo.png and demo.json.")] = Path("report"),
    as_json: Json = False,
) -> None:
    """Answer questions about documents under several placement policies, and compare them.

    Every question is answered without a cache, and from dense, balanced and planned checkpoints, all at one
    byte budget. The table shows what each policy held, recomputed and took, and whether its outputs are
    identical.

    Try: `milepost demo --model Qwen/Qwen3.5-0.8B --documents stories.jsonl --capacity 4GiB`
    """
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


def main() -> None:
    """Run the command line; errors become one line and an exit code."""
    console = Console(stderr=True)
    try:
        app(standalone_mode=True)
    except MilepostError as error:
        console.print(f"[bold red]Error:[/] {type(error).__name__}: ", end="")
        console.print(str(error), markup=False, highlight=False)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("Interrupted; nothing half-done was kept.")
        sys.exit(130)
