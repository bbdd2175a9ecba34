"""What one model says and how: its readers, and what its template is told of reasoning."""

from collections.abc import Sequence
from typing import Any, final

from milepost.chat.prompt_tokenizer import PromptTokenizer
from milepost.server.speech.markup import EFFORTS, Markup, markup_of
from milepost.server.speech.reader import SpeechReader

__all__ = ["Speech"]

# An answer's header is looked for this near to the prompt's end before it is looked for everywhere.
_NEAR_TOKENS = 256


@final
class Speech:
    """See the module.

    Args:
        tokenizer: The model's; None, and one that knows no messages, give text alone.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        is_rich = hasattr(tokenizer, "apply_chat_template")
        self.markup = markup_of(PromptTokenizer(tokenizer)) if is_rich else Markup()
        # As the prompt's tokens spell it.
        self._header = (
            self._decoded(tokenizer.encode(self.markup.header, add_special_tokens=False))
            if (is_rich and self.markup.header)
            else ""
        )

    def reader(
        self, prompt: Sequence[int], *, tools: Sequence[Any] | None = None, first_call_only: bool = False
    ) -> SpeechReader:
        """Return what reads an answer to a prompt of messages.

        Args:
            prompt: Its tokens.
            tools: Those that the model may call; None leaves calls in the text.
            first_call_only: The answer ends with its first call.
        """
        template = self.markup.response_template
        if template is None:
            return SpeechReader(None)
        return SpeechReader(
            template, prompt=self._begun(prompt), tools=tools, first_call_only=first_call_only
        )

    def template_options(self, *, thinks: bool | None, effort: str | None = None) -> dict[str, Any]:
        """Return what the chat template is told of reasoning, where it can be told.

        Args:
            thinks: Whether the model is to reason before it answers; None leaves it to the template.
            effort: How much, in the words of ``EFFORTS``; the nearest that the template takes is told.
        """
        found: dict[str, Any] = {}
        if thinks is not None and self.markup.thinking_switch is not None:
            found[self.markup.thinking_switch] = thinks
        if effort is not None and self.markup.efforts:
            wanted = EFFORTS.index(effort)
            found["reasoning_effort"] = min(
                self.markup.efforts, key=lambda each: abs(EFFORTS.index(each) - wanted)
            )
        return found

    def _begun(self, prompt: Sequence[int]) -> str:
        """Return the prompt's text from its last header on; empty where there is none."""
        if self.markup.is_own:
            # It has an anchor of its own.
            return self._decoded(list(prompt))
        if not self._header:
            return ""
        for count in (_NEAR_TOKENS, len(prompt)):
            _, header, begun = self._decoded(list(prompt[-count:])).rpartition(self._header)
            if header:
                return header + begun
        return ""

    def _decoded(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(tokens)
        return text
