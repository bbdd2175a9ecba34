"""A tier found again after a restart: its tree is rebuilt from what its shelf lists, without reading a
payload.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from milepost.disk.entry import Entry
from milepost.errors import InvalidRequestError
from milepost.hosted_cache import HostedCache
from milepost.tiers.handles import Handle
from milepost.tiers.tier import Tier

__all__ = ["restore_tier"]


@final
@dataclass(frozen=True, slots=True)
class _Listed:
    """A source of the handles of one checkpoint."""

    state: Handle | None
    segments: Sequence[Handle]
    segment_tokens: int

    def checkpoint(self, position: int) -> Handle | None:
        return self.state

    def kv_segments(self, start: int, end: int) -> Sequence[Handle]:
        step = self.segment_tokens
        return self.segments[start // step : end // step]


def restore_tier(tier: Tier, faster: Iterable[HostedCache]) -> int:
    """Rebuild an empty ``tier``, and let the caches of ``faster`` tiers know its prompts: what those had at
    its positions went with the earlier process. What fits nothing is removed. Return how many checkpoints
    there are.

    Complexity: O(tokens of all prompts listed).
    """
    shelf, cache, step = tier.shelf, tier.cache, tier.segment_tokens
    entries = {entry.key: entry for entry in shelf.entries()}
    handles = {key: Handle(key, entry.num_bytes, is_shelved=True) for key, entry in entries.items()}
    caches = list(faster)
    used: set[str] = set()
    num_found = 0
    for entry in _ends(entries.values(), is_stateless=cache.footprint.is_stateless):
        line = _line(entry, entries, segment_tokens=step)
        if line is None:
            continue
        tokens = np.frombuffer(b"".join(each.tokens for each in line), "<i4").astype(np.int32)
        segments = [handles[each.key] for each in line if each.kind == "kv"]
        state = handles[entry.key] if entry.kind == "state" else None
        try:
            found = cache.adopt(
                tokens,
                _Listed(state, segments, step),
                num_tokens=entry.prompt_tokens,
                tenant=entry.namespace,
            )
        except InvalidRequestError:
            # Of another size than this model's.
            continue
        if found is None:
            continue
        num_found += 1
        used.update(each.key for each in line)
        for each in caches:
            each.know(tokens, num_tokens=entry.prompt_tokens, tenant=entry.namespace, had=(entry.end,))
    shelf.remove([key for key in entries if key not in used])
    return num_found


def _ends(entries: Iterable[Entry], *, is_stateless: bool) -> Iterator[Entry]:
    """Yield what can be resumed from: states, or the last segments where there are none."""
    if not is_stateless:
        yield from (entry for entry in entries if entry.kind == "state")
        return
    listed = list(entries)
    parents = {entry.parent for entry in listed}
    yield from (entry for entry in listed if entry.kind == "kv" and entry.key not in parents)


def _line(end: Entry, entries: dict[str, Entry], *, segment_tokens: int) -> list[Entry] | None:
    """Return the entries whose tokens make up the prompt before ``end``, from its start; None where one is
    missing or of another prompt.
    """
    line, entry = [end], end
    while entry.parent is not None:
        parent = entries.get(entry.parent)
        if parent is None or parent.kind != "kv" or parent.end != entry.start:
            return None
        if parent.namespace != end.namespace or parent.end - parent.start != segment_tokens:
            return None
        line.append(parent)
        entry = parent
    return line[::-1] if entry.start == 0 else None
