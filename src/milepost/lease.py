"""One request's hold on what it resumes from."""

from collections.abc import Sequence
from typing import Any, Self

from milepost.errors import InvalidRequestError
from milepost.placement import PlacementRequest
from milepost.store import Checkpoint, Payload, PrefixStore, TreeMatch
from milepost.tokens import KeyArray

__all__ = ["Lease"]


class Lease:
    """One request's hold on what it resumes from: pinned until released, by ``with`` or :meth:`release`.

    Attributes:
        tokens: The prompt.
        match: How far it followed earlier prompts, good as long as no other prompt is committed.
        request: What the policy is told of the prompt.
        state: Payload of the checkpoint at ``resume_position``; None at 0, where KV alone is resumed from,
            and once released.
        kv_segments: Payloads of the whole KV segments before ``resume_position``, in order; empty once
            released.
    """

    def __init__(
        self,
        *,
        store: PrefixStore,
        tokens: KeyArray,
        match: TreeMatch,
        tenant: str,
        request: PlacementRequest,
        usable_position: int,
        reached_position: int,
        cleared_position: int,
        checkpoint: Checkpoint | None,
        kv_segments: Sequence[Any],
    ) -> None:
        self.tokens = tokens
        self.match = match
        self.tenant = tenant
        self.request = request
        self.usable_position = usable_position
        self.reached_position = reached_position
        self.cleared_position = cleared_position
        self.checkpoint = checkpoint
        self.state: Payload | None = None if checkpoint is None else checkpoint.payload
        self.kv_segments = kv_segments
        self.is_released = False
        self.is_committed = False
        self._store = store
        self._held: list[Checkpoint] = []
        if checkpoint is not None:
            self.hold(checkpoint)

    @property
    def resume_position(self) -> int:
        """Tokens that need not be computed."""
        return self.request.resume_position

    @property
    def held(self) -> tuple[Checkpoint, ...]:
        """The checkpoints that it pins: the one resumed from, and those committed with it."""
        return tuple(self._held)

    def require_of(self, store: PrefixStore) -> None:
        """Raise ``InvalidRequestError`` unless this lease was acquired on ``store``."""
        if store is not self._store:
            raise InvalidRequestError("the lease belongs to another cache; use it where it was acquired")

    def require_held(self, store: PrefixStore) -> None:
        """Raise ``InvalidRequestError`` unless this lease is held on ``store``."""
        self.require_of(store)
        if self.is_released:
            raise InvalidRequestError(
                "the lease is released, so nothing holds what it resumed from; plan and commit first"
            )

    def require_open(self, store: PrefixStore) -> None:
        """Raise ``InvalidRequestError`` unless this lease is held on ``store`` and was not committed yet."""
        self.require_held(store)
        if self.is_committed:
            raise InvalidRequestError("the lease is committed already; acquire one for each request")

    def require_committed(self, store: PrefixStore) -> None:
        """Raise ``InvalidRequestError`` unless this lease was committed to ``store``."""
        self.require_of(store)
        if not self.is_committed:
            raise InvalidRequestError("the lease is not committed, so its prompt is unknown; commit it first")

    def hold(self, checkpoint: Checkpoint) -> None:
        """Pin ``checkpoint`` until this lease is released."""
        self._store.pin(checkpoint)
        self._held.append(checkpoint)

    def release(self) -> None:
        """Let go of everything, the payloads included: what is evicted from now on must not live on in a
        lease that somebody keeps. Harmless when done twice.
        """
        self.is_released = True
        self.state = None
        self.kv_segments = ()
        while self._held:
            self._store.unpin(self._held.pop())
        # The budget may have been made smaller than what was held.
        self._store.shrink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
