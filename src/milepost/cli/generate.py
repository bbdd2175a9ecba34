"""``milepost generate``."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from milepost.cli.options import ModelArgument
from milepost.errors import InvalidRequestError

__all__ = ["generate"]


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
    from milepost.engines.transformers.engine import Engine
    from milepost.engines.transformers.requests import RequestOptions

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


def _read_prompt(prompt: str) -> str:
    """Return the prompt, or the text of the file that ``@FILE`` names."""
    if not prompt.startswith("@"):
        return prompt
    path = Path(prompt[1:])
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"{path} cannot be read as text: {error}") from error
