"""``milepost chat``."""

from typing import Annotated

import typer

from milepost.cli.options import (
    EngineCapacity,
    EnginePolicy,
    FrequencyPenalty,
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
)

__all__ = ["chat"]


def chat(
    model: ModelArgument,
    system: Annotated[str | None, typer.Option(help="What the system message says.")] = None,
    max_new_tokens: MaxNewTokens = 1024,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = None,
    presence_penalty: PresencePenalty = None,
    frequency_penalty: FrequencyPenalty = None,
    seed: Seed = 0,
    stop: Stop = None,
    capacity: EngineCapacity = "1GiB",
    policy: EnginePolicy = "learned",
    numerics: Numerics = "strict",
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Read a message a line from standard input, a JSON text or object with role and content, "
            "and print a JSON object for each answer.",
        ),
    ] = False,
) -> None:
    """Talk with a chat model: each turn resumes from what the turns before it left in the cache.

    Ctrl-C stops an answer and keeps the conversation, Ctrl-D ends it, /help lists the rest. Through a pipe,
    each line is a message. What was reused goes to standard error.

    Try: `milepost chat Qwen/Qwen3.5-0.8B --system "Answer in one sentence."`
    """
    import sys

    from milepost.cli.chat_session import ChatSession
    from milepost.cli.chat_terminal import converse, converse_in_json
    from milepost.demo.embedded_model import resolve_model
    from milepost.engines.transformers.engine import Engine
    from milepost.engines.transformers.requests import RequestOptions

    options: RequestOptions = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "presence_penalty": presence_penalty,
        "frequency_penalty": frequency_penalty,
        "seed": seed,
        "stop": stop,
    }
    source, tokenizer = resolve_model(model)
    with Engine.open(
        source, tokenizer=tokenizer, capacity=capacity, policy=policy, numerics=numerics
    ) as engine:
        session = ChatSession(engine, system=system, options=options)
        if as_json:
            converse_in_json(session, sys.stdin)
        else:
            converse(session)
