"""Whether a log has whole prompts, or of each turn only what is new.

A server is sent the whole conversation at every turn, and so is a cache. Some logs keep only the new message
beside the conversation's id: replayed as they are, long prompts that share nearly everything would pass for
short ones that share nothing. So later turns of a conversation are held against its first. One that begins
as the conversation did is whole. One that begins otherwise, without a history of its own, is a *restart*: a
part of a prompt, or another agent under the same id. A log in which restarts outnumber whole turns is
refused.

Memory is bounded: the beginnings of the latest conversations.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from milepost.chat.messages import Message
from milepost.errors import TraceFormatError
from milepost.traces.keys import hash_to_key

__all__ = ["Turn", "TurnWatch", "turn_of_keys", "turn_of_messages"]

_REMEMBERED_CONVERSATIONS = 1 << 16
# Early enough for logs that nobody wants to wait for, and late enough for agents that begin anew.
_CERTAIN_RESTARTS = 50
# Prompts as tokens begin alike if they agree so far: tokenizers put marks before the text.
_BEGINNING_KEYS = 16
_SYSTEM_ROLES = ("system", "developer")


@dataclass(frozen=True, slots=True)
class Turn:
    """Attributes:
    conversation: Its id.
    beginning: What the prompt begins with after the system's message: its first message, or first tokens.
    has_history: Whether it holds an earlier question and its answer.
    parent: Id of the turn before, where turns have ids of their own and ``conversation`` is this one's.
    """

    conversation: str
    beginning: tuple[int, ...]
    has_history: bool = False
    parent: str | None = None


class TurnWatch:
    """Holds the turns of a pass against each other.

    Attributes:
        num_whole: Later turns that begin as their conversation did.
        num_restarts: Later turns that do not, and hold no history.
    """

    def __init__(self) -> None:
        self.num_whole = 0
        self.num_restarts = 0
        self.first_restart = ""
        self._beginnings: OrderedDict[str, tuple[int, ...]] = OrderedDict()

    def add(self, turn: Turn, *, place: str) -> None:
        """Count a turn. O(1).

        Raises:
            TraceFormatError: by now it is certain that turns are not whole.
        """
        known = self._beginnings.pop(turn.conversation, None)
        if turn.parent is not None:
            # Another turn may go on from the same one.
            known = self._beginnings.get(turn.parent)
        self._beginnings[turn.conversation] = known or turn.beginning
        if len(self._beginnings) > _REMEMBERED_CONVERSATIONS:
            self._beginnings.popitem(last=False)
        if known is None:
            return
        if all(one == other for one, other in zip(known, turn.beginning, strict=False)):
            self.num_whole += 1
        elif not turn.has_history:
            self.num_restarts += 1
            self.first_restart = self.first_restart or f"{place}, of conversation {turn.conversation!r}"
            if self.num_restarts >= _CERTAIN_RESTARTS:
                self.finish()

    def finish(self) -> None:
        """Raise ``TraceFormatError`` where the turns of the log are not whole."""
        if self.num_restarts > self.num_whole:
            raise TraceFormatError(
                f"the log seems to hold of each turn only what is new: {self.num_restarts} later turns begin "
                f"otherwise than their conversation and hold nothing of it ({self.num_whole} begin as it "
                f"did), the first: {self.first_restart}. Replayed so, they would share nothing. Log the "
                "whole prompt of each request, as the server gets it; or, if these are whole and only share "
                "an id, say so (--whole-prompts, whole_prompts=True)"
            )


def turn_of_keys(
    conversation: str | None, keys: npt.NDArray[np.int64], *, parent: str | None = None
) -> Turn | None:
    """Return the turn of a prompt of tokens; None where it belongs to no conversation."""
    if conversation is None:
        return None
    return Turn(conversation, tuple(keys[:_BEGINNING_KEYS].tolist()), parent=parent)


def turn_of_messages(conversation: str | None, messages: Sequence[Message]) -> Turn | None:
    """Return the turn of a prompt of messages; None where it belongs to no conversation."""
    if conversation is None:
        return None
    roles = [str(message.fields["role"]) for message in messages]
    # What is before it is often the same for all conversations.
    first = next((index for index, role in enumerate(roles) if role not in _SYSTEM_ROLES), None)
    beginning = () if first is None else (hash_to_key(f"{roles[first]}:{messages[first].text}"),)
    has_history = "user" in roles and "assistant" in roles[roles.index("user") :]
    return Turn(conversation, beginning, has_history)
