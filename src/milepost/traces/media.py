"""Images, sound and files in a conversation: how many there are, and what stands for them in the tokens.

A log has an image as data or as an address, and not as the tokens that the served model made of it. In the
text it is a placeholder with a digest of its content (see :mod:`milepost.chat.messages`): equal ones match,
different ones do not. With a number of tokens given, the placeholder gives way to that many opaque keys,
which hang on the content and are no token's id.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from milepost.chat.prompt_tokenizer import PromptTokenizer
from milepost.errors import ConfigurationError
from milepost.traces.keys import hash_to_key
from milepost.traces.token_ids import token_keys

__all__ = ["EncodedPrompt", "count_media", "encode_with_media"]

# As milepost.chat.messages writes them; the type of an image's part has "image" in it.
_IMAGE_PLACEHOLDER = re.compile(r"\[\w*image\w* [0-9a-f]{32}\]", re.IGNORECASE)
# Beyond any token's id.
_LEAST_OPAQUE_KEY = 1 << 62

_TEXT_TYPES = frozenset(("text", "input_text", "output_text", "refusal"))
# In the order in which a part's type is searched for them.
_KINDS = ("image", "audio", "video", "file")
_FILES = frozenset(("document", "pdf", "fileData", "inlineData"))


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """Keys of a text, one per token, and at which character each of them ends, ascending."""

    keys: npt.NDArray[np.int64]
    end_characters: npt.NDArray[np.int64]

    def position_of(self, character: int) -> int:
        """Return how many tokens lie wholly before ``character``. O(log num_tokens)."""
        return int(np.searchsorted(self.end_characters, character, side="right"))


def encode_with_media(tokenizer: PromptTokenizer, text: str, *, image_tokens: int) -> EncodedPrompt:
    """Return the keys of a rendered conversation with ``image_tokens`` of them for each image in it. The text
    between images is encoded by itself, as processors do that put marks of their own around an image.
    """
    spans = [match.span() for match in _IMAGE_PLACEHOLDER.finditer(text)]
    keys, ends, start = [], [], 0
    for first, last in (*spans, (len(text), len(text))):
        if first > start or not spans:
            piece = tokenizer.encode(text[start:first], add_special_tokens=False)
            if piece.end_characters is None:
                raise ConfigurationError(
                    "this tokenizer does not say where its tokens lie, so images cannot be told from text; "
                    "give one with a tokenizer.json"
                )
            if piece.tokens or not spans:
                keys.append(token_keys(piece.tokens))
                ends.append(piece.end_characters + start)
        if last > first:
            keys.append(_opaque_keys(text[first:last], image_tokens))
            ends.append(np.full(image_tokens, last, dtype=np.int64))
        start = last
    return EncodedPrompt(np.concatenate(keys), np.concatenate(ends))


def _opaque_keys(content: str, count: int) -> npt.NDArray[np.int64]:
    """Return keys that two contents never have in common, but by chance of one in 2**62."""
    base = hash_to_key(content)
    # An odd step takes different contents through different orders of the same circle.
    steps = np.arange(count, dtype=np.int64) * 0x9E3779B97F4A7C1
    return (np.int64(base) + steps) % _LEAST_OPAQUE_KEY + _LEAST_OPAQUE_KEY


def count_media(messages: Sequence[Any]) -> Counter[str]:
    """Return how many parts are no text, by kind: ``image``, ``audio``, ``video``, ``file``, ``other``."""
    found: Counter[str] = Counter()
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            found.update(
                _kind_of(part)
                for part in content
                if isinstance(part, dict) and str(part.get("type")) not in _TEXT_TYPES
            )
    return found


def _kind_of(part: Mapping[str, Any]) -> str:
    kind = str(part.get("type"))
    if kind in _FILES:
        return "file"
    return next((each for each in _KINDS if each in kind), "other")
