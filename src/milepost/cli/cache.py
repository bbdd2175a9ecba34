"""``milepost cache``: what a server keeps on disk, whether it is whole, and how to make it smaller."""

import json
import re
import time
from dataclasses import asdict
from typing import Annotated, Any

import typer

from milepost.cli.command import Command, Group
from milepost.cli.options import Json
from milepost.errors import ConfigurationError

__all__ = ["cache"]

cache = typer.Typer(
    cls=Group,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Look into the folder that a server keeps its cache in, check it, or make it smaller.",
)

CacheFolder = Annotated[
    str, typer.Option("--cache-dir", metavar="DIR", help="The folder, as the server was given it.")
]
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


@cache.command(cls=Command)
def inspect(cache_dir: CacheFolder, as_json: Json = False) -> None:
    """List what is kept of each model: prompts, states and KV, what they take in memory and here, and when
    they were last used. A server may go on while you look.

    Try: `milepost cache inspect --cache-dir ~/.cache/milepost`
    """
    from milepost.disk.inspection import summaries

    found = summaries(cache_dir)
    if as_json:
        print(json.dumps({"models": [_as_dict(each) for each in found]}))
        return
    if not found:
        print("nothing is kept there")
    for each in found:
        print(f"{each.name}  ({each.identity[:12]})")
        for name, value in _in_words(each).items():
            print(f"  {name:14} {value}")


@cache.command(cls=Command)
def verify(
    cache_dir: CacheFolder,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove what is damaged; no server may use the folder.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Read every file and compare it with its checksums. A damaged one is never served; this finds them
    before a prompt does. Exit code 1 where any is damaged.

    Try: `milepost cache verify --cache-dir ~/.cache/milepost --remove`
    """
    from milepost.disk.inspection import damages, remove_damaged

    found = remove_damaged(cache_dir) if remove else list(damages(cache_dir))
    if as_json:
        print(json.dumps({"damaged": [asdict(each) for each in found]}))
    else:
        for each in found:
            print(f"{each.key}: {each.cause}: {each.reason}")
        outcome = ", removed" if remove and found else ""
        print(f"{len(found)} damaged{outcome}" if found else "all is as it was written")
    raise typer.Exit(1 if found else 0)


@cache.command(cls=Command)
def prune(
    cache_dir: CacheFolder,
    to: Annotated[
        str | None, typer.Option("--to", metavar="BYTES", help="Leave at most so much, such as 2GiB.")
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option("--older-than", metavar="AGE", help="Remove what was not used for so long, such as 7d."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="NAME", help="Of this model alone: its name, or how its digest begins."
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Remove everything, or everything of --model.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Remove what was not used for longest, once you have said yes. No server may use the folder meanwhile.

    Try: `milepost cache prune --cache-dir ~/.cache/milepost --to 2GiB --older-than 7d`
    """
    from milepost.byte_size import format_bytes, parse_bytes
    from milepost.disk.inspection import prune as remove

    if to is None and older_than is None and not everything:
        raise ConfigurationError("nothing says what to remove; give --to, --older-than or --all")
    if everything and (to is not None or older_than is not None):
        raise ConfigurationError(
            "--all leaves nothing for --to or --older-than to choose from; give one of them"
        )
    wanted: dict[str, Any] = {
        "to_bytes": None if to is None else parse_bytes(to),
        "used_before": None if older_than is None else time.time() - _seconds(older_than),
        "model": model,
        "removes_all": everything,
    }
    due = remove(cache_dir, **wanted, dry_run=True)
    question = f"Remove {due.payloads:,} payloads, {format_bytes(due.stored_bytes)}?"
    if due.payloads and not yes and not typer.confirm(question, err=True):
        raise typer.Exit(1)
    done = remove(cache_dir, **wanted)
    if as_json:
        print(json.dumps(asdict(done)))
    else:
        print(f"removed {done.payloads:,} payloads, {format_bytes(done.stored_bytes)}")


def _seconds(age: str) -> float:
    """Return the seconds that an age such as 7d or 12h is."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([smhdw])\s*", age)
    if match is None:
        raise ConfigurationError(f"{age!r} is no age; write a number and one of s, m, h, d, w, such as 7d")
    return float(match[1]) * _UNITS[match[2]]


def _as_dict(summary: Any) -> dict[str, Any]:
    return {**asdict(summary), "raw_bytes": summary.raw_bytes, "compression": summary.compression}


def _in_words(summary: Any) -> dict[str, str]:
    from milepost.byte_size import format_bytes

    words = {
        "clients": f"{summary.clients:,}",
        "prompts": f"{summary.prompts:,}",
        "states": f"{summary.states:,} of {format_bytes(summary.state_bytes)}",
        "KV segments": f"{summary.kv_segments:,} of {format_bytes(summary.kv_bytes)}",
        "on disk": format_bytes(summary.stored_bytes),
    }
    if summary.compression is not None:
        words["compression"] = f"{summary.compression:.2f}"
    if summary.oldest is not None:
        words["last used"] = " to ".join(map(_day, (summary.oldest, summary.newest)))
    return words


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
