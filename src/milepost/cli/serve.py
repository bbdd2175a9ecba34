"""``milepost serve``."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from milepost.cli.options import EngineCapacity, EnginePolicy, KeyType, Numerics, ValueType, refuse_missing
from milepost.embedded import EMBEDDED
from milepost.server.settings import MOST_STREAM_INTERVAL_MS

__all__ = ["serve"]


def _json_object(text: str) -> dict[str, Any]:
    """Return an option that is written as JSON.

    Raises:
        typer.BadParameter: it is no object.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no JSON ({error}); write '{{\"name\": value}}'") from error
    if not isinstance(found, dict):
        raise typer.BadParameter(f"{text!r} is no object; write '{{\"name\": value}}'")
    return found


def serve(
    model: Annotated[
        str,
        typer.Argument(
            metavar="[MODEL]",
            callback=refuse_missing,
            help="Folder or hub id of a causal LM, a GGUF file, or 'embedded': the package's own small one.",
        ),
    ] = EMBEDDED,
    host: Annotated[
        str, typer.Option(help="Where to listen; others than this machine need keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 for any that is free.")] = 8000,
    capacity: EngineCapacity = "1GiB",
    live_capacity: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="What running requests may take beside the cache. Default: half of what is free.",
        ),
    ] = None,
    cache_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keeps the cache over a restart; `milepost cache` looks into it."),
    ] = None,
    disk_capacity: Annotated[
        str | None, typer.Option(metavar="SIZE", help="What may lie in --cache-dir. Default: 16GiB.")
    ] = None,
    host_capacity: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="What the host keeps beside a GPU's --capacity. Default: nothing."),
    ] = None,
    policy: EnginePolicy = "learned",
    numerics: Numerics = "strict",
    key_type: KeyType = None,
    value_type: ValueType = None,
    max_running: Annotated[int, typer.Option(min=1, help="Requests that are worked on at once.")] = 8,
    decode_rows: Annotated[
        int | None,
        typer.Option(min=1, help="Answers in one call of the model. Default: 1 in strict, all in fast."),
    ] = None,
    max_queue: Annotated[
        int, typer.Option(min=0, help="Requests that wait; beyond, 429 with Retry-After.")
    ] = 64,
    stream_interval_ms: Annotated[
        int,
        typer.Option(
            min=0,
            max=MOST_STREAM_INTERVAL_MS,
            help="Tokens that come within so many milliseconds are streamed together; 0: each alone.",
        ),
    ] = 20,
    max_answer_tokens: Annotated[
        int, typer.Option(min=1, help="Most tokens of a chat answer whose request names no number.")
    ] = 4096,
    max_body: Annotated[str, typer.Option(metavar="SIZE", help="Most bytes of a request.")] = "32MiB",
    chat_template_kwargs: Annotated[
        Any,
        typer.Option(
            parser=_json_object,
            metavar="JSON",
            help="Options of the chat template where a request has none, as '{\"enable_thinking\": false}'.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="What clients call the model. Default: the last part of MODEL."),
    ] = None,
    alias: Annotated[
        list[str] | None, typer.Option(help="Another name for it; may be given several times.")
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="API keys, one a line. Or in MILEPOST_API_KEYS, with commas."),
    ] = None,
    operator_key: Annotated[
        str | None,
        typer.Option(
            envvar="MILEPOST_OPERATOR_KEY", help="Lets see the page and the metrics where there are API keys."
        ),
    ] = None,
    salt_by_key: Annotated[
        bool, typer.Option("--salt-by-key", help="What one key leaves in the cache is no other's to use.")
    ] = False,
    warm: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Prompts to compute before the first client: JSON lines of texts or messages.",
        ),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Tell in every usage why prompt tokens were computed again."),
    ] = False,
    show_text: Annotated[
        bool,
        typer.Option(
            "--show-text", help="Show first words of prompts on the live page though there are API keys."
        ),
    ] = False,
    log_format: Annotated[
        Literal["console", "json"], typer.Option(help="How lines of the log look; each request has one.")
    ] = "console",
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], typer.Option(help="Least grave lines of the log.")
    ] = "info",
) -> None:
    """Serve a model to clients of OpenAI's and Anthropic's APIs on this machine.

    Each request resumes from the deepest state that it shares with those before it. Without MODEL it serves
    the small one that is inside the package. With --cache-dir what was computed outlives the process.

    Try: `milepost serve`, and then `curl -s localhost:8000/v1/chat/completions -H 'content-type:
    application/json' -d '{"model": "embedded", "messages": [{"role": "user", "content": "Hello"}]}'`
    """
    from milepost.extras import require_extra

    require_extra(
        "serve",
        *(
            "fastapi",
            "uvicorn",
            "openai",
            "anthropic",
            "sse_starlette",
            "psutil",
            "prometheus_client",
            "structlog",
        ),
        purpose="a server",
    )
    from rich.console import Console

    from milepost.server.keys import read_keys
    from milepost.server.settings import ServeSettings

    settings = ServeSettings.checked(
        model_name=name or Path(model).name,
        aliases=alias or (),
        host=host,
        port=port,
        api_keys=read_keys(api_key_file, os.environ.get("MILEPOST_API_KEYS")),
        operator_key=operator_key,
        salt_by_key=salt_by_key,
        max_queue=max_queue,
        stream_interval_ms=stream_interval_ms,
        max_answer_tokens=max_answer_tokens,
        max_body=max_body,
        includes_recomputed=explain,
        shows_text=show_text,
    )
    # A line is a line in a log too, however wide that says it is: an address is copied from it.
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"Opening {model} ...")
    # These take seconds: wrong options are refused before, and something is seen meanwhile.
    from milepost.embedded import resolve_model
    from milepost.engines.engine import Engine
    from milepost.server.serving import serve as run
    from milepost.server.sight.logs import configure_logs
    from milepost.server.warming import read_warm_prompts

    configure_logs(log_format, log_level, stream=sys.stderr)
    prompts = [] if warm is None else read_warm_prompts(warm)
    engine = Engine.open(
        resolve_model(model),
        capacity=capacity,
        policy=policy,
        numerics=numerics,
        key_type=key_type,
        value_type=value_type,
        max_running=max_running,
        decode_rows=decode_rows,
        chat_template_kwargs=chat_template_kwargs,
        cache_dir=cache_dir,
        disk_capacity=disk_capacity,
        host_capacity=host_capacity,
    )
    console.print(f"{engine.description}.")
    run(
        engine,
        settings,
        live_capacity=live_capacity,
        warm_prompts=prompts,
        on_warmed=lambda num_tokens, reused: console.print(
            f"Warmed a prompt of {num_tokens:,} tokens, {reused:,} of them there already."
        ),
        on_listening=lambda url: console.print(
            f"Serving {settings.model_name!r} on {url} (OpenAI: base_url {url}/v1). Ctrl-C stops it."
        ),
    )
