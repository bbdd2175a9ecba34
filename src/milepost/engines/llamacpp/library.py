"""The loaded library and one model's weights.

llama-cpp-python writes llama.cpp's log to standard error, from the moment that it is imported. Here it goes
to ``logging`` instead, for the whole process: the library has one log.
"""

import ctypes
import logging
import re
import weakref
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from milepost.errors import ModelLoadError
from milepost.extras import require_extra

__all__ = ["Model", "library"]

_log = logging.getLogger("milepost.engines.llamacpp")

# llama.cpp tells of its buffers at every context that is made: details, but for warnings and errors.
_LEVELS = {3: logging.WARNING, 4: logging.ERROR}
_CONTINUATION = 5
# What it warns of and what is right nevertheless, or is checked here: see docs/llamacpp.md.
_EXPECTED = (b"V embeddings have different sizes", b"n_ctx_seq", b"failed to find a memory slot")
_MOST_CHARACTERS = 1024
_TILES = b"AMX_INT8 = 1"
# Attributes of tokens: unknown and unused.
_NO_TEXT = 1 | 2


@cache
def library() -> ModuleType:
    """Return llama-cpp-python, its log routed to ``logging``.

    Raises:
        MissingExtraError: it is not installed.
    """
    require_extra("llamacpp", "llama_cpp", purpose="a GGUF model")
    import llama_cpp

    llama_cpp.llama_log_set(_callback(llama_cpp), ctypes.c_void_p(0))
    return llama_cpp


@cache
def _callback(llama_cpp: ModuleType) -> Any:
    """Return what llama.cpp calls with each line of its log; kept alive by the cache."""
    level = logging.DEBUG

    def note(given: int, text: bytes, _: Any) -> None:
        nonlocal level
        if given != _CONTINUATION:
            level = _LEVELS.get(given, logging.DEBUG)
            if any(each in text for each in _EXPECTED):
                level = logging.DEBUG
        if _log.isEnabledFor(level) and (line := text.decode(errors="replace").rstrip()):
            _log.log(level, "%s", line)

    return llama_cpp.llama_log_callback(note)


class Model:
    """The weights of a GGUF file, shared by all contexts over it.

    Attributes:
        handle: llama.cpp's own.
        path: Where the file is.
        metadata: What the file says of itself, as texts.
        is_repacked: Whether weights are laid out anew.

    Args:
        path: A GGUF file; of a model in several, the first.
        is_repacked: Whether weights may be laid out anew for this CPU. That is faster for some formats, and
            computes rows in groups, whose bits may hang on how many there are.

    Raises:
        MissingExtraError: llama-cpp-python is not installed.
        ModelLoadError: the file is missing, damaged, or of a kind that this llama.cpp does not know.
    """

    def __init__(self, path: str | Path, *, is_repacked: bool = False) -> None:
        self.library = llama = library()
        self.path = Path(path)
        _check_file(self.path)
        llama.llama_backend_init()
        parameters = llama.llama_model_default_params()
        # Tiles are granted and then refused in some sandboxes, which ends the process.
        self.is_repacked = is_repacked and _TILES not in llama.llama_print_system_info()
        parameters.use_extra_bufts = self.is_repacked
        self.handle = llama.llama_model_load_from_file(str(self.path).encode(), parameters)
        if not self.handle:
            raise ModelLoadError(
                f"llama.cpp cannot load {self.path}: it is damaged, incomplete, or of a family that this "
                "version does not know (its log has the reason: logger 'milepost.engines.llamacpp'); "
                "download it again, or upgrade llama-cpp-python"
            )
        # Contexts hold the model, so these go first.
        weakref.finalize(self, llama.llama_model_free, self.handle)
        self.vocabulary = llama.llama_model_get_vocab(self.handle)
        self.metadata = self._read_metadata()

    @property
    def family(self) -> str:
        """The architecture, as the file names it."""
        return self.metadata.get("general.architecture", "unknown")

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids."""
        return int(self.library.llama_vocab_n_tokens(self.vocabulary))

    @property
    def context_length(self) -> int:
        """Tokens of a sequence at most, as the file says."""
        return int(self.library.llama_model_n_ctx_train(self.handle))

    @property
    def window(self) -> int:
        """Tokens that layers with a sliding window look back; 0 where there are none."""
        return int(self.library.llama_model_n_swa(self.handle))

    def head_size(self, kind: Literal["key", "value"]) -> int:
        """Return the numbers of a head's key or value; 0 where the file does not say."""
        attention = f"{self.family}.attention."
        if (size := self.metadata.get(f"{attention}{kind}_length", "")).isdigit():
            return int(size)
        # Of a hybrid, a list with a number for each layer.
        heads = max(map(int, re.findall(r"\d+", self.metadata.get(f"{attention}head_count", ""))), default=0)
        return int(self.library.llama_model_n_embd(self.handle)) // heads if heads else 0

    @property
    def is_text_decoder(self) -> bool:
        """Whether it predicts the next token of a text, and nothing else has to be run before."""
        llama = self.library
        return bool(llama.llama_model_has_decoder(self.handle)) and not llama.llama_model_has_encoder(
            self.handle
        )

    @property
    def least_context(self) -> int:
        """Cells that every context must have at least.

        Families that rotate long prompts by other factors than short ones choose them by the size of the
        context. States of both would not fit together, so all contexts are of the long kind.
        """
        scaling = f"{self.family}.rope.scaling."
        original = self.metadata.get(scaling + "original_context_length", "0")
        if self.metadata.get(scaling + "type") == "yarn" or not original.isdigit():
            return 0
        return int(original) + 1 if int(original) < self.context_length else 0

    @property
    def chat_template(self) -> str | None:
        """The template of chats that the file comes with; None where there is none."""
        return self.metadata.get("tokenizer.chat_template") or None

    def token(self, name: str) -> int | None:
        """Return the id of a special token: ``bos``, ``eos`` ...; None where there is none."""
        found = int(getattr(self.library, f"llama_vocab_{name}")(self.vocabulary))
        return None if found < 0 else found

    def end_tokens(self) -> list[int]:
        """Return the tokens that end an answer: of the sequence, of the turn, and others. O(vocabulary)."""
        is_end = self.library.llama_vocab_is_eog
        return [token for token in range(self.vocabulary_size) if is_end(self.vocabulary, token)]

    def is_special(self, token: int) -> bool:
        """Return whether ``token`` stands for no text."""
        llama = self.library
        return bool(
            llama.llama_vocab_is_control(self.vocabulary, token)
            or llama.llama_vocab_is_eog(self.vocabulary, token)
            or llama.llama_vocab_get_attr(self.vocabulary, token) & _NO_TEXT
        )

    def _read_metadata(self) -> dict[str, str]:
        llama, found = self.library, {}
        for index in range(llama.llama_model_meta_count(self.handle)):
            key = self._text(llama.llama_model_meta_key_by_index, index)
            found[key] = self._text(llama.llama_model_meta_val_str_by_index, index)
        return found

    def _text(self, read: Any, index: int) -> str:
        size = _MOST_CHARACTERS
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = read(self.handle, index, buffer, size)
            if length < size:
                return buffer.raw[: max(length, 0)].decode(errors="replace")
            size = length + 1


def _check_file(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise ModelLoadError(
            f"{path} cannot be read ({error.strerror}); give the path of a GGUF file"
        ) from error
    if magic != b"GGUF":
        raise ModelLoadError(
            f"{path} is no GGUF file: it begins with {magic!r}; download it again, or convert the model with "
            "llama.cpp's convert_hf_to_gguf.py"
        )
