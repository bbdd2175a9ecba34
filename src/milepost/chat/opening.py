"""Open the tokenizer that a user names: from this machine where it is there, never with code of its own."""

from pathlib import Path
from typing import Any, cast

from milepost.errors import ConfigurationError, ModelLoadError
from milepost.extras import require_extra
from milepost.hub import refuse_missing_path, uses_only_local_files

__all__ = ["open_tokenizer"]


def open_tokenizer(source: str | Path | None) -> Any:
    """Return the tokenizer named by a Hugging Face name, a folder, or a ``tokenizer.json``.

    Raises:
        ModelLoadError: there is none of this name.
        MissingExtraError: transformers is not installed.
        ConfigurationError: none was named, or it cannot be opened, or it does not say where its tokens lie.
    """
    if source is None:
        raise ConfigurationError(
            "the log has text, and no tokenizer was named; name the one of the served model (--tokenizer): a "
            "Hugging Face name, a folder, or a tokenizer.json"
        )
    refuse_missing_path(source, kind="tokenizer")
    require_extra("transformers", "transformers", purpose="a log of text (whose tokens count)")
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    path = Path(source)
    try:
        if path.is_file() and not (path.parent / "tokenizer_config.json").is_file():
            tokenizer = cast(Any, PreTrainedTokenizerFast)(tokenizer_file=str(path))
        else:
            folder = path.parent if path.is_file() else path
            tokenizer = _open_pretrained(AutoTokenizer, str(folder if folder.exists() else source))
    except ModelLoadError:
        raise
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
        if uses_only_local_files(source, file_name="tokenizer_config.json", kind="tokenizer"):
            raise
        return auto_tokenizer.from_pretrained(source, trust_remote_code=False)
