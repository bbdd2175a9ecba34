"""The tokenizer inside a GGUF file, with as much of the interface of Hugging Face's as prompts need.

As there, special tokens that a text spells out are those tokens, and what a chat template wrote is the same
prompt whether it comes as messages or as that text. Where a token lies in the text is found by laying its
own text there; where that does not fit, such as where the text was normalised, nothing is said.
"""

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from milepost.engines.llamacpp.library import Model
from milepost.errors import EngineError

__all__ = ["GGUFTokenizer"]

_LONGEST_PIECE = 256


class GGUFTokenizer:
    """See the module.

    Attributes:
        chat_template: As the file has it; may be replaced. None where there is none.
        is_fast: That it says where tokens lie, where it can.

    Args:
        model: Whose.
    """

    is_fast = True

    def __init__(self, model: Model) -> None:
        self._model = model
        self._llama: Any = model.library
        self.name_or_path = model.path.name
        self.chat_template = model.chat_template
        self._pieces: dict[int, tuple[bytes, bool]] = {}
        self._has_blank: bool | None = None

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """The texts of special tokens, by the names that templates know them by."""
        found = {name: self._model.token(name) for name in ("bos", "eos", "pad")}
        return {
            f"{name}_token": self._llama.llama_vocab_get_text(self._model.vocabulary, token).decode()
            for name, token in found.items()
            if token is not None
        }

    def __len__(self) -> int:
        return self._model.vocabulary_size

    def __call__(
        self,
        text: str,
        *,
        add_special_tokens: bool = True,
        return_offsets_mapping: bool = False,
        verbose: bool = True,
    ) -> dict[str, Any]:
        """Return ``input_ids``, and ``offset_mapping`` where it is asked for: a pair of characters for each
        token, or None where it cannot be told.
        """
        del verbose
        encoded: dict[str, Any] = {"input_ids": self._tokenize(text, add_special_tokens=add_special_tokens)}
        if return_offsets_mapping:
            encoded["offset_mapping"] = self._offsets(text, encoded["input_ids"])
        return encoded

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Return the token ids of ``text``."""
        return self._tokenize(text, add_special_tokens=add_special_tokens)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of ``token_ids``, special tokens spelled out; bytes that are no text as U+FFFD."""
        number = len(token_ids)
        tokens = np.ascontiguousarray(token_ids, dtype=np.int32)
        size = _LONGEST_PIECE + 16 * number
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = self._llama.llama_detokenize(
                self._model.vocabulary, _tokens(self._llama, tokens), number, buffer, size, False, True
            )
            if length >= 0:
                return buffer.raw[:length].decode(errors="replace")
            size = -length

    def apply_chat_template(
        self,
        conversation: Sequence[Mapping[str, Any]],
        *,
        tokenize: bool = True,
        tools: Any = None,
        documents: Any = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        chat_template: str | None = None,
        **options: Any,
    ) -> Any:
        """Return the text that the template makes of ``conversation``, rendered by transformers, or its
        tokens.
        """
        from transformers.utils.chat_template_utils import render_jinja_template

        render: Any = render_jinja_template
        rendered, _ = render(
            conversations=[list(conversation)],
            tools=tools,
            documents=documents,
            chat_template=chat_template or self.chat_template,
            continue_final_message=continue_final_message,
            add_generation_prompt=add_generation_prompt,
            **{**self.special_tokens_map, **options},
        )
        return self.encode(rendered[0], add_special_tokens=False) if tokenize else rendered[0]

    def _tokenize(self, text: str, *, add_special_tokens: bool) -> list[int]:
        data = text.encode()
        tokens = np.empty(len(data) + 8, np.int32)
        while True:
            number = self._llama.llama_tokenize(
                self._model.vocabulary,
                data,
                len(data),
                _tokens(self._llama, tokens),
                tokens.size,
                add_special_tokens,
                True,
            )
            if number >= 0:
                found: list[int] = tokens[:number].tolist()
                return found
            if -number <= tokens.size:
                raise EngineError(f"llama.cpp cannot tokenize a text of {len(data):,} bytes (code {number})")
            tokens = np.empty(-number, np.int32)

    def _offsets(self, text: str, tokens: Sequence[int]) -> list[tuple[int, int]] | None:
        """Lay each token's text where the one before it ends. O(characters).

        A token before or after a text that does not spell it lies nowhere. A blank that SentencePiece puts
        before a text, and after a special token, takes no room.
        """
        data = text.encode()
        spans: list[tuple[int, int]] = []
        at, is_begin = 0, True
        for token in tokens:
            piece, is_special = self._piece(token)
            # The blank that is put before a text is no part of it.
            blank = is_begin and self._puts_blank() and piece[:1] == b" "
            if data.startswith(piece[blank:], at):
                end = at + len(piece) - blank
            elif at in (0, len(data)) and is_special:
                end = at
            else:
                return None
            spans.append((at, end))
            at, is_begin = end, is_special
        if at != len(data):
            return None
        # A character that several tokens share ends with each of them, as with Hugging Face's.
        begun = np.concatenate(([0], np.cumsum((np.frombuffer(data, np.uint8) & 0xC0) != 0x80)))
        return [(int(begun[start]), int(begun[end])) for start, end in spans]

    def _puts_blank(self) -> bool:
        """Return whether a text gets a blank before it, and so does one after a special token."""
        if self._has_blank is None:
            first = self._tokenize("a", add_special_tokens=False)[:1]
            self._has_blank = any(self._piece(token)[0][:1] == b" " for token in first)
        return self._has_blank

    def _piece(self, token: int) -> tuple[bytes, bool]:
        """Return a token's own text, and whether it is a special one."""
        found = self._pieces.get(token)
        if found is None:
            found = self._pieces[token] = self._read_piece(token), self._model.is_special(token)
        return found

    def _read_piece(self, token: int) -> bytes:
        size = _LONGEST_PIECE
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = self._llama.llama_token_to_piece(self._model.vocabulary, token, buffer, size, 0, True)
            if length >= 0:
                return buffer.raw[:length]
            size = -length


def _tokens(llama: Any, tokens: Any) -> Any:
    return ctypes.cast(tokens.ctypes.data, ctypes.POINTER(llama.llama_token))
