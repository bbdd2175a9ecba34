"""``milepost generate``."""

import json
from pathlib import Path
from typing import Annotated

import typer

from milepost.cli.options import (
    EngineCapacity,
    EnginePolicy,
    FrequencyPenalty,
    JsonLines,
    KeyType,
    Logprobs,
    MaxNewTokens,
    MinP,
    ModelArgument,
    Numerics,
    PresencePenalty,
    RepetitionPenalty,
    Seed,
    Stop,
    Temperature,
    TopK,
    TopP,
    ValueType,
)

__all__ = ["generate"]


def generate(
    context: typer.Context,
    model: ModelArgument,
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT", help="Texts; @FILE reads a file.")],
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = None,
    presence_penalty: PresencePenalty = None,
    frequency_penalty: FrequencyPenalty = None,
    seed: Seed = 0,
    stop: Stop = None,
    logprobs: Logprobs = None,
    capacity: EngineCapacity = "1GiB",
    policy: EnginePolicy = "learned",
    numerics: Numerics = "strict",
    key_type: KeyType = None,
    value_type: ValueType = None,
    as_json: JsonLines = False,
) -> None:
    """Answer prompts one after the other, each resumed from the deepest checkpoint it shares.

    The answer streams to standard output; what the cache holds, what was reused, and why the rest was not,
    goes to standard error. What no option says is as the model's generation_config has it.

    Try: `milepost generate Qwen/Qwen3.5-0.8B @story.txt "Once upon a time" --max-new-tokens 32`
    """
    from rich.console import Console

    from milepost.cli.own_engine import open_engine
    from milepost.cli.request_options import request_options

    options = request_options(context)
    texts = [_read_prompt(prompt) for prompt in prompts]
    with open_engine(context, model) as engine:
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

    from milepost.errors import InvalidRequestError

    path = Path(prompt[1:])
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"{path} cannot be read as text: {error}") from error
