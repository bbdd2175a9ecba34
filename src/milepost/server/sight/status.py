"""The snapshot that ``/status.json``, the live page and ``milepost top`` share; see docs/watching.md.

Its numbers are those of ``/metrics``: both are read from one :class:`Scene`.
"""

from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

from milepost.server.settings import ServeSettings
from milepost.server.sight.close_look import CloseLook
from milepost.server.sight.look import TierLook
from milepost.server.sight.metrics import Scene
from milepost.server.sight.timeline import BIN_SECONDS
from milepost.server.usage import CAUSES
from milepost.store import Outline

__all__ = ["VERSION", "status_of"]

# Of the snapshot's form: a field that goes, or means something else, makes it another one.
VERSION = 1
_MOST_CHARACTERS = 56


def status_of(
    scene: Scene,
    close: CloseLook | None,
    *,
    settings: ServeSettings,
    started: int,
    text_of: Callable[[tuple[int, ...]], str] | None,
) -> dict[str, Any]:
    """Return the snapshot.

    Args:
        scene: What metrics tell.
        close: The rest; None where the engine stopped before anyone looked.
        settings: The server's.
        started: When it was, in seconds since 1970.
        text_of: Returns what tokens say; None where the text of prompts is not to be shown.
    """
    totals, tally, worker = scene.look.totals, scene.tally, scene.worker
    prompt_speed, generated_speed = tally.timeline.speed()
    first_tokens = [each.ttft_seconds for each in tally.recent if each.ttft_seconds is not None]
    return {
        "version": VERSION,
        "server": {
            "model": settings.model_name,
            "started": started,
            "stopped": worker.stopped,
            "facts": {} if close is None else dict(close.facts),
        },
        "queue": {
            "running": worker.num_running,
            "waiting": worker.num_waiting,
            "max_running": worker.admission.max_running,
            "max_waiting": worker.admission.max_waiting,
        },
        "speed": {
            "prompt_tokens_per_second": round(prompt_speed, 1),
            "generated_tokens_per_second": round(generated_speed, 1),
            "median_ttft_seconds": round(median(first_tokens), 4) if first_tokens else None,
        },
        "prefix_cache": {
            "requests": totals.num_requests,
            "queries": totals.num_tokens,
            "hits": totals.reused,
            "recomputed": {cause: getattr(totals, cause) for cause in CAUSES},
        },
        "tokens": {"prompt": tally.prompt_tokens, "generated": tally.generated_tokens},
        "finished": dict(tally.finished),
        "refused": {str(status): count for status, count in sorted(tally.refused.items())},
        "audits": {
            "passed": scene.look.audits.num_audits - scene.look.audits.num_mismatches,
            "failed": scene.look.audits.num_mismatches,
        },
        "tiers": [_tier(each, scene.look.token_cost) for each in scene.look.tiers],
        "timeline": {"bin_seconds": BIN_SECONDS, "bins": tally.timeline.as_json()},
        "overlaps": None if close is None else close.overlaps,
        "tree": None if close is None else _tree(close.outline, scene, text_of),
        "recent": [each.as_json() for each in reversed(tally.recent)],
    }


def _tier(tier: TierLook, token_cost: float) -> dict[str, Any]:
    held = tier.statistics
    return {
        "name": held.name,
        "capacity_bytes": held.capacity_bytes,
        "state_bytes": held.checkpoint_bytes,
        "kv_bytes": held.kv_bytes,
        "stored_bytes": held.stored_bytes,
        "checkpoints": held.num_checkpoints,
        "evictions": held.num_evictions,
        "cached_tokens": held.traffic.reused_tokens,
        "fetches": held.traffic.num_fetches,
        "fetched_bytes": held.traffic.fetched_bytes,
        "fetch_seconds": round(held.traffic.fetch_seconds, 4),
        "declined": held.traffic.num_declined,
        "damaged": held.traffic.num_damaged,
        "lost": held.traffic.num_lost,
        "price_of_a_byte": tier.price,
        "tokens_saved_per_megabyte": None if tier.price is None else 1e6 * tier.price / token_cost,
        "shelf": dict(tier.shelf),
    }


def _tree(
    outline: Outline, scene: Scene, text_of: Callable[[tuple[int, ...]], str] | None
) -> Mapping[str, Any]:
    names = [tier.statistics.name for tier in scene.look.tiers]
    return {
        "num_tenants": outline.num_tenants,
        "num_hidden": outline.num_hidden,
        "nodes": [
            {
                "parent": node.parent,
                "tenant": node.tenant,
                "start": node.start,
                "end": node.end,
                "text": None if text_of is None else _words(text_of(node.first_keys)),
                "kv_tokens": node.kv_tokens,
                "num_checkpoints": node.num_checkpoints,
                "checkpoints": [
                    {
                        "position": each.position,
                        "bytes": each.num_bytes,
                        "is_promised": each.is_promised,
                        "is_pinned": each.is_pinned,
                    }
                    for each in node.checkpoints
                ],
                "elsewhere": dict(zip(names[1:], node.elsewhere, strict=True)),
                "lost": node.lost,
                "num_hidden": node.num_hidden,
            }
            for node in outline.nodes
        ],
    }


def _words(text: str) -> str:
    """Return the first words, on one line."""
    line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return line if len(line) <= _MOST_CHARACTERS else line[: _MOST_CHARACTERS - 1].rstrip() + "…"
