"""What ``milepost top`` draws, from a snapshot and the room there is."""

import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from milepost.byte_size import format_bytes
from milepost.cli.top_reading import StatusReader
from milepost.errors import ConfigurationError

__all__ = ["screen", "watch"]

# What became of a token, in the order of the bars.
_STYLES = {
    "reused": "cyan",
    "unseen": "bright_black",
    "alignment": "yellow",
    "placement": "dark_orange",
    "eviction": "red",
    "reset": "magenta",
}
_NARROW, _FULL_BLOCK = 72, "█"
_MOST_TREE, _MOST_RECENT = 12, 10


def watch(reader: StatusReader, *, every_seconds: float, once: bool) -> None:
    """Draw what ``reader`` reads until interrupted; a server that goes away meanwhile is waited for.

    Raises:
        ConfigurationError: there is none at the start.
    """
    console = Console()
    snapshot = reader.read()
    if once or not console.is_terminal:
        console.print(screen(snapshot, width=console.width))
        return
    with Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            live.update(screen(snapshot, width=console.width), refresh=True)
            time.sleep(every_seconds)
            try:
                snapshot = reader.read()
            except ConfigurationError as error:
                snapshot = snapshot | {"server": snapshot["server"] | {"stopped": str(error)}}


def screen(snapshot: Mapping[str, Any], *, width: int) -> RenderableType:
    """Return the whole picture."""
    cache = snapshot["prefix_cache"]
    parts: list[RenderableType] = [_head(snapshot)]
    if not cache["queries"] and not snapshot["recent"]:
        parts.append(Text("Nothing was asked yet. Ask something twice: milepost chat URL", style="dim"))
        return Group(*parts)
    parts += [
        Text(),
        _bar({"reused": cache["hits"], **cache["recomputed"]}, width=max(10, width - 2)),
        _key({"reused": cache["hits"], **cache["recomputed"]}),
        Text(),
        *(_tier(tier, width=width) for tier in snapshot["tiers"]),
        Text(),
        *_tree(snapshot["tree"], width=width),
        Text(),
        _recent(snapshot["recent"], width=width),
    ]
    return Group(*parts)


def _head(snapshot: Mapping[str, Any]) -> Text:
    server, queue, speed = snapshot["server"], snapshot["queue"], snapshot["speed"]
    cache = snapshot["prefix_cache"]
    state = ("serving", "green") if server["stopped"] is None else (server["stopped"], "bold red")
    rate = f"{cache['hits'] / cache['queries']:.0%}" if cache["queries"] else "–"
    ttft = speed["median_ttft_seconds"]
    return Text.assemble(
        (server["model"], "bold"),
        "  ",
        state,
        f"\n{queue['running']} running, {queue['waiting']} waiting; ",
        (f"{rate} of prompt tokens reused", "cyan"),
        f"; first token after {_seconds(ttft)}; ",
        f"{speed['generated_tokens_per_second']:,.0f} tokens a second",
    )


def _bar(parts: Mapping[str, int], *, width: int) -> Text:
    """Return amounts as blocks; what there is of has one at least."""
    total = sum(parts.values())
    bar = Text(no_wrap=True, overflow="crop")
    for name, style in _STYLES.items():
        if parts.get(name):
            bar.append(_FULL_BLOCK * max(1, round(width * parts[name] / total)), style)
    return bar


def _key(parts: Mapping[str, int]) -> Text:
    total = sum(parts.values()) or 1
    words = Text()
    for name, style in _STYLES.items():
        if parts.get(name):
            words.append(f"{_FULL_BLOCK} ", style)
            words.append(f"{parts[name] / total:.0%} {name}  ")
    return words


def _tier(tier: Mapping[str, Any], *, width: int) -> Text:
    capacity = max(tier["capacity_bytes"], 1)
    room = max(8, min(40, width - 34))
    states = round(room * tier["state_bytes"] / capacity)
    kv = min(room - states, round(room * tier["kv_bytes"] / capacity))
    held = format_bytes(tier["state_bytes"] + tier["kv_bytes"])
    words = Text.assemble(
        f"{tier['name']:<8.8} ",
        (_FULL_BLOCK * states, "blue"),
        (_FULL_BLOCK * kv, "bright_blue"),
        ("░" * (room - states - kv), "dim"),
        f" {held} of {format_bytes(capacity)}",
    )
    price = tier["tokens_saved_per_megabyte"]
    more = f", a MB saves a request {price:,.2g} tokens" if price else ""
    words.append(
        f"\n         {tier['checkpoints']:,} checkpoints, {tier['evictions']:,} evictions, "
        f"{tier['cached_tokens']:,} tokens reused{more}",
        "dim",
    )
    return words


def _tree(tree: Mapping[str, Any] | None, *, width: int) -> Iterable[Text]:
    """Yield the stretches of prompts that hold something, those that begin a prompt first."""
    nodes = tree["nodes"] if tree else []
    depths: list[int] = []
    for node in nodes:
        depths.append(0 if node["parent"] is None else depths[node["parent"]] + 1)
    held = [(node, depth) for node, depth in zip(nodes, depths, strict=True) if _positions(node)]
    for node, depth in held[:_MOST_TREE]:
        told = _safe(node["text"]) or f"tokens {node['start']:,} to {node['end']:,}"
        line = Text("  " * depth + told, no_wrap=True, overflow="ellipsis")
        line.truncate(max(10, width // 2 - 2), overflow="ellipsis")
        line.append("  " + " ".join(f"▲{position:,}" for position in _positions(node)), "blue")
        line.truncate(width, overflow="ellipsis")
        yield line
    if len(held) > _MOST_TREE:
        yield Text(f"and {len(held) - _MOST_TREE} stretches more", style="dim")


def _positions(node: Mapping[str, Any]) -> list[int]:
    found = {each["position"] for each in node["checkpoints"]}
    return sorted(found.union(*node["elsewhere"].values()))


def _recent(records: Iterable[Mapping[str, Any]], *, width: int) -> Table:
    is_narrow = width < _NARROW
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", expand=True)
    for name in [
        "ended",
        "prompt",
        "where its tokens went",
        "first",
        *([] if is_narrow else ["all", "answer"]),
    ]:
        is_bar = name.startswith("where")
        table.add_column(
            name, justify="left" if is_bar or name == "ended" else "right", ratio=1 if is_bar else None
        )
    for record in list(records)[:_MOST_RECENT]:
        parts = {"reused": sum(record["cached_tokens"].values()), **record["recomputed"]}
        went: Text = _bar(parts, width=max(8, width - (30 if is_narrow else 48)))
        if record["status"] >= 400:
            went = Text(f"refused: {record['status']}", style="bold red")
        row = [
            Text(datetime.fromtimestamp(record["at"]).strftime("%H:%M:%S")),
            Text(f"{record['prompt_tokens']:,}"),
            went,
            Text(_seconds(record["ttft_seconds"])),
        ]
        if not is_narrow:
            row += [Text(_seconds(record["total_seconds"])), Text(f"{record['generated_tokens']:,}")]
        table.add_row(*row)
    return table


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _safe(text: str | None) -> str:
    """Return ``text`` without what a terminal would obey."""
    return "".join(each for each in text or "" if each.isprintable())
