"""KV events for routers: attention blocks are told of only as long as something can be resumed from them.

Routers that follow vLLM's KV events (Dynamo, llm-d, Ray Serve) keep an index of attention blocks and drop
events of recurrent groups. Of a hybrid model that index promises prefixes whose states are gone, or were
never kept, and requests are sent to where nothing is. Here an attention block is announced when a checkpoint
at its end or behind it can be resumed from, and taken back when the last of those has gone. What the index
still promises too much is the way from the last checkpoint before the place where a prompt parts from all
others to that place: no set of attention blocks that is read one after the other can say that who goes on to
the next checkpoint finds them and who parts before it does not. Events of recurrent groups say it, and pass
as they are unless they are not wanted, like those of other tiers and of anything else.
"""

from collections.abc import Sequence
from typing import Any, final

import msgspec
from vllm.distributed.kv_events import (
    MEDIUM_GPU,
    AllBlocksCleared,
    BlockRemoved,
    BlockStored,
    EventPublisher,
    KVEventBatch,
)
from vllm.v1.core.kv_cache_utils import maybe_convert_block_hash

from milepost.vllm.resumable_prefixes import ResumablePrefixes

__all__ = ["ResumableEvents"]


@final
class ResumableEvents(EventPublisher):
    """See the module.

    Args:
        inner: vLLM's own publisher.
        kv_groups: The attention groups, at least one.
        state_groups: The recurrent groups.
        tells_states: Whether events of recurrent groups pass. Where they do not, groups of attention are told
            of as 0 and so on: vLLM numbers them behind, and some routers follow group 0 alone.
    """

    def __init__(
        self,
        inner: EventPublisher,
        *,
        kv_groups: Sequence[int],
        state_groups: Sequence[int],
        tells_states: bool = True,
    ) -> None:
        #: Gets what is left of the events.
        self.inner = inner
        self._kv_groups, self._state_groups = tuple(kv_groups), tuple(state_groups)
        self._tells_states = tells_states
        # By what number each group is told of.
        self._numbers: dict[Any, int] = {}
        if not tells_states:
            self._numbers.update({group: at for at, group in enumerate(kv_groups)})
        self._prefixes = ResumablePrefixes(kv_groups=kv_groups, state_groups=state_groups)
        # Where each block of KV was told of first: the event, and which of its blocks.
        self._sources: dict[tuple[Any, int], tuple[Any, int]] = {}
        # Where a prefix that ends inside a block has its block begin.
        self._block_starts: dict[Any, Any] = {}
        self._repeated: list[Any] = []
        self._removed: list[Any] = []

    def note_inside(self, prefix_hash: bytes, block_start_hash: bytes | None) -> None:
        """Note which prefix ends where the block begins that ``prefix_hash`` ends inside: an event tells the
        match unit before it only.
        """
        start = None if block_start_hash is None else maybe_convert_block_hash(block_start_hash)
        self._block_starts[maybe_convert_block_hash(prefix_hash)] = start

    def note_repeated(self, events: Sequence[Any]) -> None:
        """Note events that tell again what a request resumes from (``kv_cache_report_mode``): they pass."""
        self._repeated += events

    def publish(self, events: KVEventBatch) -> None:
        """Pass on what is left of a batch, if anything. O(blocks in it) amortised."""
        left: list[Any] = []
        for event in events.events:
            left += self._passed_on(event)
        self._repeated.clear()
        for prefix_hash in self._removed:
            # Not earlier: a block that fills up loses the prefixes inside it, and is given them again.
            if prefix_hash not in self._prefixes:
                self._block_starts.pop(prefix_hash, None)
        self._removed.clear()
        if left:
            events.events = [self._renumbered(event) for event in left]
            self.inner.publish(events)

    def shutdown(self) -> None:
        """Shut down the publisher inside."""
        self.inner.shutdown()

    def get_publisher_config(self) -> Any:
        """Return the configuration of the publisher inside."""
        return self.inner.get_publisher_config()

    def _passed_on(self, event: Any) -> list[Any]:
        """Take in an event; return what is to be told instead."""
        if isinstance(event, AllBlocksCleared):
            self._prefixes.clear()
            self._sources.clear()
            self._block_starts.clear()
            return [event]
        is_state = event.group_idx in self._state_groups
        told = [event] if self._tells_states or not is_state else []
        if event.medium != MEDIUM_GPU or any(event is each for each in self._repeated):
            return told
        if is_state:
            for prefix_hash in event.block_hashes:
                if isinstance(event, BlockStored):
                    self._prefixes.store_state(prefix_hash, event.group_idx)
                else:
                    self._prefixes.remove_state(prefix_hash, event.group_idx)
            return [*told, *self._changes()]
        if event.group_idx not in self._kv_groups:
            return [event]
        if isinstance(event, BlockStored):
            self._store_kv(event)
        else:
            for prefix_hash in event.block_hashes:
                if self._prefixes.remove_kv(prefix_hash, event.group_idx):
                    del self._sources[prefix_hash, event.group_idx]
                    self._removed.append(prefix_hash)
        return self._changes()

    def _renumbered(self, event: Any) -> Any:
        group = getattr(event, "group_idx", None)
        number = self._numbers.get(group, group)
        return event if number == group else msgspec.structs.replace(event, group_idx=number)

    def _store_kv(self, event: Any) -> None:
        parent = event.parent_block_hash
        for index, prefix_hash in enumerate(event.block_hashes):
            self._sources.setdefault((prefix_hash, event.group_idx), (event, index))
            start = self._block_starts.get(prefix_hash, parent)
            self._prefixes.store_kv(prefix_hash, event.group_idx, parent=start)
            parent = prefix_hash

    def _changes(self) -> list[Any]:
        """Return the events of blocks that have become useless or useful."""
        useless, useful = self._prefixes.take_changes()
        told: list[Any] = [
            BlockRemoved(block_hashes=list(useless), medium=MEDIUM_GPU, group_idx=group)
            for group in self._kv_groups
            if useless
        ]
        for group in self._kv_groups:
            run: list[Any] = []
            for prefix_hash in useful:
                block = self._block(prefix_hash, group)
                if run and not _follows(block, run[-1]):
                    told.append(_joined(run))
                    run = []
                run.append(block)
            if run:
                told.append(_joined(run))
        return told

    def _block(self, prefix_hash: Any, group: int) -> Any:
        """Return the event of one block of KV alone."""
        event, index = self._sources[prefix_hash, group]
        size = event.block_size
        parts = {
            "block_hashes": [prefix_hash],
            "parent_block_hash": event.block_hashes[index - 1] if index else event.parent_block_hash,
            "token_ids": event.token_ids[index * size : (index + 1) * size],
        }
        for name in ("extra_keys", "lookahead_token_ids"):
            if (of_blocks := getattr(event, name, None)) is not None:
                parts[name] = of_blocks[index : index + 1]
        return msgspec.structs.replace(event, **parts)


def _follows(block: Any, before: Any) -> bool:
    return (
        block.parent_block_hash == before.block_hashes[-1]
        and block.block_size == before.block_size
        and (block.extra_keys is None) is (before.extra_keys is None)
    )


def _joined(run: Sequence[Any]) -> Any:
    """Return one event of blocks that follow one another."""
    first = run[0]
    if len(run) == 1:
        return first
    parts: dict[str, Any] = {"block_hashes": [each.block_hashes[0] for each in run]}
    for name in ("token_ids", "extra_keys", "lookahead_token_ids"):
        if getattr(first, name, None) is not None:
            parts[name] = [part for each in run for part in getattr(each, name)]
    return msgspec.structs.replace(first, **parts)
