"""What a model says as the items of OpenAI's newer API, whole or event by event.

Every event has its number, and every item three of them at least: it is added, its parts come, it is done.
The events' shapes are those of the ``openai`` package.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from openai.types import responses as shapes
from openai.types.responses.response_usage import ResponseUsage

from milepost.server.dialects.responses.body import ResponsesBody
from milepost.server.faults import Fault
from milepost.server.speech.pieces import Piece, Reasoning, Text, ToolCall, joined
from milepost.server.speech.sealed import seal

__all__ = ["ResponseWriter"]

Event = shapes.ResponseStreamEvent


class ResponseWriter:
    """Writes one answer, one way or the other.

    Args:
        body: What was asked.
        response_id: What it is called.
        model: Who says it.
        created: When, in seconds since 1970.
        new_id: Makes an id that begins with what it is given.
    """

    def __init__(
        self,
        body: ResponsesBody,
        *,
        response_id: str,
        model: str,
        created: int,
        new_id: Callable[[str], str],
    ) -> None:
        self._head = {"id": response_id, "model": model, "created_at": created, **_repeated(body)}
        self._seals = body.seals_reasoning
        self._new_id = new_id
        self._number = -1
        self._output: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None
        self._part: dict[str, Any] = {}

    def whole(self, pieces: Iterable[Piece], *, usage: ResponseUsage, is_cut: bool) -> shapes.Response:
        """Return the answer in one piece.

        Args:
            pieces: What was said.
            usage: Of the whole.
            is_cut: Whether it ended before the model ended it.
        """
        for piece in joined(pieces):
            for _ in self.tell(piece):
                pass
        for _ in self._close(is_cut=is_cut):
            pass
        return self._ended(usage, is_cut=is_cut)

    def begin(self) -> Iterator[Event]:
        """Yield what comes first."""
        running = self._response(status="in_progress")
        yield self._event("response.created", response=running)
        yield self._event("response.in_progress", response=running)

    def tell(self, piece: Piece) -> Iterator[Event]:
        """Yield what tells of one piece more."""
        if isinstance(piece, ToolCall):
            yield from self._close()
            yield from self._call(piece)
            return
        kind = "message" if isinstance(piece, Text) else "reasoning"
        if self._open is None or self._open["type"] != kind:
            yield from self._close()
            yield from self._start(piece)
        self._part["text"] += piece.text
        yield self._event(f"response.{self._part['type']}.delta", delta=piece.text, **self._growing())

    def end(self, *, usage: ResponseUsage, is_cut: bool) -> Iterator[Event]:
        """Yield what comes last; arguments as of :meth:`whole`."""
        yield from self._close(is_cut=is_cut)
        kind = "response.incomplete" if is_cut else "response.completed"
        yield self._event(kind, response=self._ended(usage, is_cut=is_cut))

    def fail(self, fault: Fault) -> Event:
        """Return what tells of an error in the middle of the answer."""
        code = "rate_limit_exceeded" if fault.status == 429 else "server_error"
        error = {"code": code, "message": fault.message}
        return self._event("response.failed", response=self._response(status="failed", error=error))

    def _start(self, piece: Text | Reasoning) -> Iterator[Event]:
        if isinstance(piece, Text):
            item: dict[str, Any] = {"type": "message", "id": self._new_id("msg_"), "role": "assistant"}
            self._part = {"type": "output_text", "text": "", "annotations": []}
        else:
            item = {"type": "reasoning", "id": self._new_id("rs_"), "summary": []}
            self._part = {"type": "reasoning_text", "text": ""}
        self._open = {**item, "status": "in_progress", "content": []}
        self._output.append(self._open)
        yield self._event("response.output_item.added", **self._item())
        yield self._event("response.content_part.added", **self._place(), part=dict(self._part))

    def _close(self, *, is_cut: bool = False) -> Iterator[Event]:
        """Yield the end of the item that is open."""
        if self._open is None:
            return
        text = self._part["text"]
        yield self._event(f"response.{self._part['type']}.done", text=text, **self._growing())
        yield self._event("response.content_part.done", **self._place(), part=dict(self._part))
        self._open.update(status="incomplete" if is_cut else "completed", content=[self._part])
        if self._open["type"] == "reasoning" and self._seals:
            self._open["encrypted_content"] = seal(text)
        yield self._event("response.output_item.done", **self._item())
        self._open = None

    def _call(self, call: ToolCall) -> Iterator[Event]:
        item = {
            "type": "function_call",
            "id": self._new_id("fc_"),
            "call_id": call.id or self._new_id("call_"),
            "name": call.name,
        }
        self._output.append({**item, "arguments": "", "status": "in_progress"})
        yield self._event("response.output_item.added", **self._item())
        place = {"item_id": item["id"], "output_index": len(self._output) - 1}
        arguments = call.arguments
        yield self._event("response.function_call_arguments.delta", **place, delta=arguments)
        yield self._event(
            "response.function_call_arguments.done", **place, arguments=arguments, name=call.name
        )
        self._output[-1].update(arguments=arguments, status="completed")
        yield self._event("response.output_item.done", **self._item())

    def _item(self) -> dict[str, Any]:
        return {"output_index": len(self._output) - 1, "item": dict(self._output[-1])}

    def _place(self) -> dict[str, Any]:
        return {
            "item_id": self._output[-1]["id"],
            "output_index": len(self._output) - 1,
            "content_index": 0,
        }

    def _growing(self) -> dict[str, Any]:
        """Return the place of a text that grows, with what is told of its tokens."""
        return self._place() if self._part["type"] == "reasoning_text" else self._place() | {"logprobs": []}

    def _ended(self, usage: ResponseUsage, *, is_cut: bool) -> shapes.Response:
        if not is_cut:
            return self._response(status="completed", usage=usage)
        details = {"reason": "max_output_tokens"}
        return self._response(status="incomplete", usage=usage, incomplete_details=details)

    def _response(self, **fields: Any) -> shapes.Response:
        output = [dict(item) for item in self._output]
        nothing = {"error": None, "incomplete_details": None, "usage": None}
        return shapes.Response.model_validate({**self._head, **nothing, **fields, "output": output})

    def _event(self, kind: str, **fields: Any) -> Event:
        self._number += 1
        event: Event = _SHAPES[kind].model_validate({"type": kind, "sequence_number": self._number, **fields})
        return event


_SHAPES: Mapping[str, Any] = {
    "response.created": shapes.ResponseCreatedEvent,
    "response.in_progress": shapes.ResponseInProgressEvent,
    "response.completed": shapes.ResponseCompletedEvent,
    "response.incomplete": shapes.ResponseIncompleteEvent,
    "response.failed": shapes.ResponseFailedEvent,
    "response.output_item.added": shapes.ResponseOutputItemAddedEvent,
    "response.output_item.done": shapes.ResponseOutputItemDoneEvent,
    "response.content_part.added": shapes.ResponseContentPartAddedEvent,
    "response.content_part.done": shapes.ResponseContentPartDoneEvent,
    "response.output_text.delta": shapes.ResponseTextDeltaEvent,
    "response.output_text.done": shapes.ResponseTextDoneEvent,
    "response.reasoning_text.delta": shapes.ResponseReasoningTextDeltaEvent,
    "response.reasoning_text.done": shapes.ResponseReasoningTextDoneEvent,
    "response.function_call_arguments.delta": shapes.ResponseFunctionCallArgumentsDeltaEvent,
    "response.function_call_arguments.done": shapes.ResponseFunctionCallArgumentsDoneEvent,
}


def _repeated(body: ResponsesBody) -> dict[str, Any]:
    """Return what an answer repeats of its request."""
    return {
        "object": "response",
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata or {},
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": None,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": None if body.reasoning is None else {"effort": body.reasoning.effort},
        "store": False,
        "temperature": body.temperature,
        "text": {"format": {"type": "text"}},
        "tool_choice": body.tool_choice or "auto",
        "tools": [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
                "strict": bool(tool.strict),
            }
            for tool in body.tools or []
        ],
        "top_p": body.top_p,
        "truncation": "disabled",
    }
