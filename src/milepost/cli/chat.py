"""``milepost chat``."""

from typing import Annotated

import typer

from milepost.cli.options import (
    ENGINE_OPTIONS,
    EngineCapacity,
    EnginePolicy,
    FrequencyPenalty,
    KeyType,
    MinP,
    Numerics,
    PresencePenalty,
    RepetitionPenalty,
    Seed,
    Stop,
    Temperature,
    TopK,
    TopP,
    ValueType,
    is_url,
    refuse_missing,
)

__all__ = ["chat"]


def chat(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            callback=refuse_missing,
            help="Folder or hub id of a chat model, GGUF file, 'embedded' for the package's own, or the URL "
            "of a server, as http://127.0.0.1:8000.",
        ),
    ],
    system: Annotated[str | None, typer.Option(help="What the system message says.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 1024,
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
    key_type: KeyType = None,
    value_type: ValueType = None,
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

    With the URL of a server it talks to that; its API key is in the variable MILEPOST_API_KEY.

    Ctrl-C stops an answer and keeps the conversation, Ctrl-D ends it, /help lists the rest. Through a pipe,
    each line is a message. What was reused goes to standard error.

    Try: `milepost chat Qwen/Qwen3.5-0.8B --system "Answer in one sentence."`
    """
    import sys

    from milepost.cli.chat_terminal import converse, converse_in_json
    from milepost.cli.request_options import request_options

    if is_url(model):
        from milepost.extras import require_extra

        require_extra("serve", "openai", purpose="a chat with a server")
        from milepost.cli.remote_session import RemoteSession

        refuse_engine_options(context)
        remote = RemoteSession(model, system=system, options=request_options(context))
        converse_in_json(remote, sys.stdin) if as_json else converse(remote)
        return

    from milepost.cli.chat_session import ChatSession
    from milepost.cli.own_engine import open_engine

    with open_engine(context, model) as engine:
        session = ChatSession(engine, system=system, options=request_options(context))
        if as_json:
            converse_in_json(session, sys.stdin)
        else:
            converse(session)


def refuse_engine_options(context: typer.Context) -> None:
    """Refuse options of an engine that is not ours to open."""
    for name in ENGINE_OPTIONS:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(
                f"the server at the URL has its own; give --{name.replace('_', '-')} to `milepost serve`",
                ctx=context,
            )
