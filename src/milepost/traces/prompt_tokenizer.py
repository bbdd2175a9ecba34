"""The tokenizer that a user names for logs of text: strings to token ids, messages to strings.

Opened when the first line of text needs it, from this machine where it is there, and never with code of its
own. A position in a text becomes a position in its tokens through the offsets of one encoding of the whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from milepost.errors import ConfigurationError, InvalidRequestError

__all__ = ["EncodedText", "PromptTokenizer"]


@dataclass(frozen=True, slots=True)
class EncodedText:
    """The tokens of a text, and at which character each of them ends, ascending; shape ``[num_tokens]``."""

    tokens: list[int]
    end_characters: npt.NDArray[np.int64]

    def position_of(self, character: int) -> int:
        """Return how many tokens lie wholly before ``character``. O(log num_tokens)."""
        return int(np.searchsorted(self.end_characters, character, side="right"))


class PromptTokenizer:
    """A Hugging Face tokenizer, opened at its first use.

    Args:
        source: A name, a folder, or a ``tokenizer.json``. None is an error at the first use.
    """

    def __init__(self, source: str | Path | None) -> None:
        self._source = source
        self._opened: Any = None

    def encode(self, text: str, *, add_special_tokens: bool) -> EncodedText:
        """Return the tokens of ``text``; a template writes its own special tokens, a bare prompt has none.

        Raises:
            ConfigurationError: no tokenizer was named, or it cannot be opened.
        """
        encoded = self._tokenizer()(
            text, add_special_tokens=add_special_tokens, return_offsets_mapping=True, verbose=False
        )
        ends = np.fromiter((end for _, end in encoded["offset_mapping"]), dtype=np.int64)
        # Special tokens at the end have no text and say that they end at character 0.
        return EncodedText(encoded["input_ids"], np.maximum.accumulate(ends) if ends.size else ends)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Any = None,
        options: Mapping[str, Any],
        add_generation_prompt: bool,
    ) -> str:
        """Return the text that the chat template makes of ``messages``.

        Raises:
            ConfigurationError: there is no tokenizer, or it has no chat template.
            InvalidRequestError: the template refuses these messages.
        """
        tokenizer = self._tokenizer()
        if not tokenizer.chat_template:
            raise ConfigurationError(
                f"the tokenizer {self._source} has no chat template, and the log has messages; give the "
                "tokenizer of a chat model (--tokenizer), as a folder with its chat_template.jinja or "
                "tokenizer_config.json"
            )
        try:
            rendered: str = tokenizer.apply_chat_template(
                list(messages),
                tools=tools,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **options,
            )
        except Exception as error:  # templates are programs, and fail as programs do
            raise InvalidRequestError(
                f"the chat template of {self._source} refuses these messages: {error}"
            ) from error
        return rendered

    def _tokenizer(self) -> Any:
        if self._opened is None:
            self._opened = _open(self._source)
        return self._opened


def _open(source: str | Path | None) -> Any:
    if source is None:
        raise ConfigurationError(
            "the log has text, and no tokenizer was named; name the one of the served model (--tokenizer): a "
            "Hugging Face name, a folder, or a tokenizer.json"
        )
    try:
        from transformers import AutoTokenizer, PreTrainedTokenizerFast
    except ImportError as error:
        raise ConfigurationError(
            "a log of text needs transformers to make tokens of it; install milepost[transformers]"
        ) from error
    path = Path(source)
    try:
        if path.is_file() and not (path.parent / "tokenizer_config.json").is_file():
            tokenizer = cast(Any, PreTrainedTokenizerFast)(tokenizer_file=str(path))
        else:
            folder = path.parent if path.is_file() else path
            tokenizer = _open_pretrained(AutoTokenizer, str(folder if folder.exists() else source))
    except Exception as error:  # tokenizers raise plain Exceptions
        reason = str(error).strip().partition("\n")[0]
        raise ConfigurationError(
            f"tokenizer={str(source)!r} cannot be opened: {reason}; give a Hugging Face name, a folder or a "
            "tokenizer.json"
        ) from error
    if not tokenizer.is_fast:
        raise ConfigurationError(
            f"tokenizer={str(source)!r} is a {type(tokenizer).__name__}, which does not say where its tokens "
            "lie in the text; give one with a tokenizer.json"
        )
    return tokenizer


def _open_pretrained(auto_tokenizer: Any, source: str) -> Any:
    try:
        return auto_tokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    except OSError:
        if Path(source).exists():
            raise
        return auto_tokenizer.from_pretrained(source, trust_remote_code=False)
