"""The ``milepost`` command. Exit codes: 0 done, 1 something was refused, 2 wrong usage, 130 Ctrl-C."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from milepost.errors import InvalidRequestError, MilepostError

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
ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Folder or hub id of a causal LM, or 'embedded' for a small one built on the spot.",
    ),
]
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
        typer.Option(help=_POLICIES_HELP + "Default: none, dense:2048, balanced:4, learned."),
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

    Every question is answered without a cache, and from dense, balanced and learned checkpoints, all at one
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


@app.command()
def generate(
    model: ModelArgument,
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT...", help="Texts; @FILE reads a file.")],
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens of an answer.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    top_k: Annotated[int | None, typer.Option(help="Draw from this many most likely tokens.")] = None,
    top_p: Annotated[float, typer.Option(help="Draw from the fewest tokens with this probability.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the random stream.")] = 0,
    stop: Annotated[
        list[str] | None, typer.Option(help="String that ends an answer; may be given twice.")
    ] = None,
    capacity: Annotated[str, typer.Option(help="Budget for states and KV.")] = "1GiB",
    policy: Annotated[str, typer.Option(help="Placement policy; see `milepost policies`.")] = "learned",
    numerics: Annotated[str, typer.Option(help="strict (bit for bit) or fast (to rounding).")] = "strict",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object a line for each prompt instead of text.")
    ] = False,
) -> None:
    """Answer prompts one after the other, each resumed from the deepest checkpoint it shares.

    The answer streams to standard output; what the cache holds, what was reused, and why the rest was not,
    goes to standard error.

    Try: `milepost generate Qwen/Qwen3.5-0.8B @story.txt "Once upon a time" --max-new-tokens 32`
    """
    from milepost.demo.embedded_model import resolve_model
    from milepost.engines.transformers.engine import Engine, RequestOptions

    options: RequestOptions = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
        "stop": stop or (),
    }
    texts = [_read_prompt(prompt) for prompt in prompts]
    source, tokenizer = resolve_model(model)
    with Engine.open(
        source, tokenizer=tokenizer, capacity=capacity, policy=policy, numerics=numerics
    ) as engine:
        errors = Console(stderr=True)
        errors.print(f"[dim]{engine.description}[/]")
        for text in texts:
            generation = engine.submit(text, **options)
            for event in engine.run(generation):
                if not as_json:
                    print(event.text, end="", flush=True)
            completion = generation.completion()
            if as_json:
                print(json.dumps(completion.as_json()))
            else:
                print()
                errors.print(f"[dim]{completion.summary()}[/]")


@app.command()
def footprint(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder, hub id, or path of a config.json.")],
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16; as stored unless given.")
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Prompt length that FLOPs are given for.")] = 8192,
    calibrate: Annotated[
        bool, typer.Option(help="Load the model, measure prefills and print seconds too (slower).")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what a checkpoint, a token of KV and a prefill of a model cost, from its configuration alone.

    Try: `milepost footprint Qwen/Qwen3.5-0.8B --calibrate`
    """
    from milepost.demo.embedded_model import resolve_model
    from milepost.engines.transformers.describe import describe_footprint

    facts = describe_footprint(
        resolve_model(model)[0], dtype=dtype, num_tokens=tokens, with_seconds=calibrate
    )
    if as_json:
        print(json.dumps(facts))
        return
    for name, value in facts.items():
        print(f"{name:28} {value:,}" if isinstance(value, int | float) else f"{name:28} {value}")


@app.command()
def probe(model: ModelArgument, as_json: Json = False) -> None:
    """Prove on a model that it resumes exactly, or say why it cannot be used. Takes ten short prefills."""
    from dataclasses import asdict

    from milepost.demo.embedded_model import resolve_model
    from milepost.engines.transformers.families import driver_for
    from milepost.engines.transformers.loading import load_model
    from milepost.engines.transformers.probe import probe_resume

    report = asdict(probe_resume(driver_for(load_model(resolve_model(model)[0]).model)))
    if as_json:
        print(json.dumps(report))
        return
    for name, value in report.items():
        print(f"{name:28} {value}")


@app.command()
def policies(as_json: Json = False) -> None:
    """List the placement policies and how they are written."""
    from milepost.policies import describe_policies

    described = describe_policies()
    if as_json:
        print(json.dumps(dict(described)))
        return
    width = max(len(notation) for notation, _ in described)
    for notation, summary in described:
        print(f"{notation:{width}}  {summary}")


def _read_prompt(prompt: str) -> str:
    """Return the prompt, or the text of the file that ``@FILE`` names."""
    if not prompt.startswith("@"):
        return prompt
    path = Path(prompt[1:])
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"{path} cannot be read as text: {error}") from error


def main() -> None:
    """Run the command line; errors become one line and an exit code. Typer sees to wrong usage and Ctrl-C."""
    console = Console(stderr=True)
    # Advice about optional kernels would bury the answers; whoever wants it sets the variable.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        app(standalone_mode=True)
    except MilepostError as error:
        console.print(f"[bold red]Error:[/] {type(error).__name__}: ", end="")
        console.print(str(error), markup=False, highlight=False)
        sys.exit(1)
