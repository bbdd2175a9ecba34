"""The demo from end to end: open, ask, show."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from transformers import PreTrainedModel

from milepost.byte_size import parse_bytes
from milepost.demo.comparison import Comparison, compare_policies
from milepost.demo.documents import Document, read_documents
from milepost.demo.figure import draw_comparison
from milepost.demo.library_documents import library_documents
from milepost.demo.table import comparison_table
from milepost.demo.workload import Ask, chat_prompt, interleave, text_prompt
from milepost.embedded import EMBEDDED, resolve_model
from milepost.engines.completion import Completion
from milepost.engines.engine import Engine
from milepost.engines.text import Tokenizer
from milepost.engines.transformers.loading import load_model
from milepost.errors import ConfigurationError
from milepost.footprint import Footprint
from milepost.report.drawing_library import load_matplotlib
from milepost.whole_table import print_whole

__all__ = ["DemoOptions", "run_demo"]

# States that the budget has room for, per document, beside the KV of all documents.
_CHECKPOINTS_PER_DOCUMENT = 2.0
_MOST_TITLES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What the command line asks for; see ``milepost demo --help``."""

    model: str | None = None
    documents: Path | None = None
    max_documents: int = 6
    questions: int = 5
    policies: tuple[str, ...] = ("none", "dense:2048", "balanced:4", "learned")
    capacity: str | None = None
    max_new_tokens: int = 64
    numerics: str = "strict"
    output: Path = Path("report")


def run_demo(options: DemoOptions, console: Console) -> Comparison:
    """Answer the questions under every policy, print the table, write the picture and the numbers.

    Raises:
        MilepostError: an option, the model or the documents break a rule. No result was written.
    """
    if len(options.policies) < 1 or options.max_documents < 1 or options.questions < 1:
        raise ConfigurationError("a demo needs at least one policy, one document and one question")
    _prepare_output(options.output)
    console.print("Opening the model: ", end="")
    model, tokenizer, name = _open(options.model)
    documents = _documents(options)
    engine = Engine.open(model, tokenizer=tokenizer, policy="none", numerics=options.numerics, max_running=1)
    prompt = chat_prompt if getattr(tokenizer, "chat_template", None) else text_prompt
    # Its own way to encode checks every prompt against the model's context.
    asks = interleave(documents, lambda *asked: engine.encode(prompt(*asked)), questions=options.questions)
    capacity_bytes = (
        parse_bytes(options.capacity)
        if options.capacity
        else _budget(asks, engine.footprint, engine.segment_tokens)
    )
    console.print(f"{name}; {engine.description}.")
    titles = [document.title for document in documents[:_MOST_TITLES]]
    console.print(
        f"Asking {len(asks)} questions about {len(documents)} documents "
        f"({', '.join(titles)}{', ...' if len(documents) > len(titles) else ''}), "
        f"sessions interleaved, prefill cut every {engine.segment_tokens} tokens."
    )
    comparison = _compare_with_progress(engine, name, asks, capacity_bytes, options, console)
    print_whole(comparison_table(comparison), console)
    _print_an_answer(comparison, console)
    numbers, picture = options.output / "demo.json", options.output / "demo.png"
    numbers.write_text(json.dumps(comparison.as_json(), indent=1) + "\n")
    draw_comparison(comparison, picture)
    console.print(f"Wrote {picture} and {numbers}.")
    return comparison


def _prepare_output(folder: Path) -> None:
    """Find out before the work, not after it, that its result cannot be written."""
    load_matplotlib("the picture")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot write to {folder}: {error}; give another --output") from error


def _open(source: str | None) -> tuple[PreTrainedModel, Tokenizer, str]:
    if source in (None, EMBEDDED):
        # Its matrices are small: two threads gain little, and beside other work they mostly wait for each
        # other, up to fifty times as long.
        torch.set_num_threads(1)
    opened = load_model(resolve_model(source or EMBEDDED))
    if opened.tokenizer is None:
        raise ConfigurationError(f"{source} has no tokenizer beside it, and documents are text; add one")
    return opened.model, opened.tokenizer, source or "the embedded model"


def _documents(options: DemoOptions) -> list[Document]:
    if options.documents is None:
        return library_documents(max_documents=options.max_documents, questions=options.questions)
    return read_documents(options.documents, max_documents=options.max_documents)


def _budget(asks: Sequence[Ask], footprint: Footprint, segment_tokens: int) -> int:
    """Room for the KV of every document once, and a couple of states for each."""
    longest: dict[int, int] = {}
    for ask in asks:
        longest[ask.document] = max(longest.get(ask.document, 0), ask.tokens.size)
    states = int(_CHECKPOINTS_PER_DOCUMENT * len(longest)) * footprint.checkpoint_bytes
    least = footprint.checkpoint_bytes + segment_tokens * footprint.kv_bytes_per_token
    return max(least, sum(longest.values()) * footprint.kv_bytes_per_token + states)


def _compare_with_progress(
    engine: Engine,
    name: str,
    asks: Sequence[Ask],
    capacity_bytes: int,
    options: DemoOptions,
    console: Console,
) -> Comparison:
    columns = (
        TextColumn("{task.description:>12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[reused]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        tasks = {policy: progress.add_task(policy, total=len(asks), reused="") for policy in options.policies}
        reused = dict.fromkeys(options.policies, 0)
        seen = dict.fromkeys(options.policies, 0)

        def on_answer(policy: str, completion: Completion) -> None:
            reused[policy] += completion.report.reused
            seen[policy] += completion.report.num_tokens
            share = f"{reused[policy] / seen[policy]:4.0%} reused"
            progress.update(tasks[policy], advance=1, reused=share)

        return compare_policies(
            engine,
            asks,
            name=name,
            policies=options.policies,
            capacity_bytes=capacity_bytes,
            max_new_tokens=options.max_new_tokens,
            on_answer=on_answer,
        )


def _print_an_answer(comparison: Comparison, console: Console) -> None:
    """Show one request in full: the last one of the last policy."""
    ask, answer = comparison.asks[-1], comparison.runs[-1].answers[-1].completion
    console.print(
        f"For example: {ask.question.text!r} resumed at token {answer.report.reused:,} of "
        f"{answer.report.num_tokens:,} and answered {answer.text!r}.",
        highlight=False,
        markup=False,
    )
