"""What a model says as the blocks of Anthropic's API, whole or event by event."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from anthropic.types import (
    InputJSONDelta,
    Message,
    RawContentBlockDeltaEvent,
    RawContentBlockStartEvent,
    RawContentBlockStopEvent,
    RawMessageDeltaEvent,
    RawMessageStartEvent,
    RawMessageStopEvent,
    RawMessageStreamEvent,
    SignatureDelta,
    TextBlock,
    TextDelta,
    ThinkingBlock,
    ThinkingDelta,
    ToolUseBlock,
    Usage,
)
from anthropic.types.message_delta_usage import MessageDeltaUsage
from anthropic.types.raw_message_delta_event import Delta

from milepost.server.speech.pieces import Piece, Reasoning, Text, ToolCall, joined
from milepost.server.speech.sealed import seal

__all__ = ["Ending", "MessageWriter"]

Block = TextBlock | ThinkingBlock | ToolUseBlock


@dataclass(frozen=True, slots=True)
class Ending:
    """What ended an answer, and what it used.

    Attributes:
        stop_reason: As Anthropic's, but for calls of tools, which the writer knows of.
        stop_sequence: The one that was met; None where none was.
        usage: Of the whole.
    """

    stop_reason: str
    stop_sequence: str | None
    usage: Usage


class MessageWriter:
    """Writes one answer, one way or the other.

    Args:
        message_id: What it is called.
        model: Who says it.
        shows_thoughts: Whether thoughts are told; their signature is, in any case.
        new_id: Makes ids of calls that the model does not name.
    """

    def __init__(
        self, *, message_id: str, model: str, shows_thoughts: bool, new_id: Callable[[], str]
    ) -> None:
        self._head: dict[str, Any] = {
            "id": message_id,
            "type": "message",
            "role": "assistant",
            "model": model,
        }
        self._shows_thoughts = shows_thoughts
        self._new_id = new_id
        self._open: Text | Reasoning | None = None
        self._thought = ""
        self._index = -1
        self._has_calls = False

    def whole(self, pieces: Iterable[Piece], ending: Ending) -> Message:
        """Return the answer in one piece."""
        content = [self._block(piece) for piece in joined(pieces)]
        return Message.model_validate(
            {
                **self._head,
                "content": content,
                "stop_reason": self._stop_reason(ending),
                "stop_sequence": ending.stop_sequence,
                "usage": ending.usage,
            }
        )

    def begin(self, usage: Usage) -> RawMessageStartEvent:
        """Return what comes first."""
        empty: dict[str, Any] = {"content": [], "stop_reason": None, "stop_sequence": None}
        message = Message.model_validate({**self._head, **empty, "usage": usage})
        return RawMessageStartEvent(type="message_start", message=message)

    def tell(self, piece: Piece) -> Iterator[RawMessageStreamEvent]:
        """Yield what tells of one piece more."""
        if isinstance(piece, ToolCall):
            yield from self._close()
            block = self._block(piece)
            assert isinstance(block, ToolUseBlock)
            yield from self._start(block.model_copy(update={"input": {}}))
            yield self._delta(InputJSONDelta(type="input_json_delta", partial_json=piece.arguments))
            yield self._stop()
            return
        if type(piece) is not type(self._open):
            yield from self._close()
            self._open = type(piece)("")
            empty = TextBlock(type="text", text="")
            thought = ThinkingBlock(type="thinking", thinking="", signature="")
            yield from self._start(empty if isinstance(piece, Text) else thought)
        if isinstance(piece, Text):
            yield self._delta(TextDelta(type="text_delta", text=piece.text))
            return
        self._thought += piece.text
        if self._shows_thoughts:
            yield self._delta(ThinkingDelta(type="thinking_delta", thinking=piece.text))

    def end(self, ending: Ending) -> Iterator[RawMessageStreamEvent]:
        """Yield what comes last."""
        yield from self._close()
        used = ending.usage
        yield RawMessageDeltaEvent(
            type="message_delta",
            delta=Delta.model_validate(
                {"stop_reason": self._stop_reason(ending), "stop_sequence": ending.stop_sequence}
            ),
            usage=MessageDeltaUsage(
                input_tokens=used.input_tokens,
                output_tokens=used.output_tokens,
                cache_read_input_tokens=used.cache_read_input_tokens,
                cache_creation_input_tokens=used.cache_creation_input_tokens,
            ),
        )
        yield RawMessageStopEvent(type="message_stop")

    def _block(self, piece: Piece) -> Block:
        match piece:
            case Text():
                return TextBlock(type="text", text=piece.text)
            case Reasoning():
                shown = piece.text if self._shows_thoughts else ""
                return ThinkingBlock(type="thinking", thinking=shown, signature=seal(piece.text))
            case ToolCall():
                self._has_calls = True
                return ToolUseBlock(
                    type="tool_use",
                    id=piece.id or self._new_id(),
                    name=piece.name,
                    input=json.loads(piece.arguments),
                )

    def _stop_reason(self, ending: Ending) -> str:
        return "tool_use" if self._has_calls and ending.stop_reason == "end_turn" else ending.stop_reason

    def _start(self, block: Block) -> Iterator[RawMessageStreamEvent]:
        self._index += 1
        yield RawContentBlockStartEvent(type="content_block_start", index=self._index, content_block=block)

    def _delta(self, delta: Any) -> RawContentBlockDeltaEvent:
        return RawContentBlockDeltaEvent(type="content_block_delta", index=self._index, delta=delta)

    def _stop(self) -> RawContentBlockStopEvent:
        return RawContentBlockStopEvent(type="content_block_stop", index=self._index)

    def _close(self) -> Iterator[RawMessageStreamEvent]:
        """Yield the end of the block that is open."""
        if self._open is None:
            return
        if isinstance(self._open, Reasoning):
            signature = SignatureDelta(type="signature_delta", signature=seal(self._thought))
            yield self._delta(signature)
        self._open, self._thought = None, ""
        yield self._stop()
