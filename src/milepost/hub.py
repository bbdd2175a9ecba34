"""What a model's name stands for: a folder of this machine or a model of the hub. Where it is neither, that
is said at once.

Libraries that open models take every name that is no folder for one of the hub's, and ask it again and again
where it does not answer. Here a name that can only be a path is refused before anything is loaded; for the
others the hub is knocked at once, and where it does not answer, only what is on this machine counts.
"""

import difflib
import re
from pathlib import Path

from milepost.errors import ModelLoadError

__all__ = ["refuse_missing_path", "uses_only_local_files"]

# As the hub has it: a name, or an owner's name and a name.
_HUB_ID = re.compile(r"(?![.-])[A-Za-z0-9._-]+(?:/(?![.-])[A-Za-z0-9._-]+)?")
_FILE_SUFFIXES = (".json", ".safetensors", ".gguf")
_MOST_CHARACTERS = 96
_MOST_SECONDS_TO_CONNECT = 3.0


def refuse_missing_path(source: str | Path, *, kind: str = "model") -> None:
    """Refuse a name that can only be a path, where nothing is at it. Loads nothing.

    Args:
        source: A folder, a file or a hub id.
        kind: What it is of: a ``model`` or a ``tokenizer``.

    Raises:
        ModelLoadError: nothing is there.
    """
    if not _is_there(source) and not _could_be_hub_id(str(source)):
        is_gguf = kind == "model" and str(source).lower().endswith(".gguf")
        remedy = (
            "give the path of a GGUF file on this machine"
            if is_gguf
            else f"give the folder of a transformers {kind}, or a hub id"
        )
        raise ModelLoadError(f"there is no folder or file {_quoted(source)}; {remedy}")


def uses_only_local_files(
    source: str | Path, *, file_name: str = "config.json", revision: str | None = None, kind: str = "model"
) -> bool:
    """Say whether ``source`` can be opened from this machine alone: it is a path, or the hub does not answer.

    Args:
        source: A folder, a file or a hub id.
        file_name: One that every repository of this kind has.
        revision: Of a hub id.
        kind: What it is of: a ``model`` or a ``tokenizer``.

    Raises:
        ModelLoadError: nothing is there, and the hub does not answer.
    """
    refuse_missing_path(source, kind=kind)
    if _is_there(source):
        return True
    silence = _silence_of_the_hub()
    if silence is None:
        return False
    from huggingface_hub import try_to_load_from_cache

    if not isinstance(try_to_load_from_cache(str(source), file_name, revision=revision), str):
        raise ModelLoadError(
            f"there is no folder {_quoted(source)}, and as a hub id it was not downloaded before and cannot "
            f"be looked up ({silence}); give the folder of a transformers {kind}, or try again online"
        )
    return True


def _is_there(source: str | Path) -> bool:
    try:
        return str(source) != "" and Path(source).exists()
    except (OSError, ValueError):  # no name that a file can have
        return False


def _could_be_hub_id(text: str) -> bool:
    is_named_so = _HUB_ID.fullmatch(text) is not None and len(text) <= _MOST_CHARACTERS
    return is_named_so and not text.endswith(_FILE_SUFFIXES)


def _silence_of_the_hub() -> str | None:
    """Return why the hub cannot be asked; None where it answers, whatever it says."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        get_session().head(constants.ENDPOINT, timeout=_MOST_SECONDS_TO_CONNECT)
    except Exception as error:  # of whichever HTTP library the hub's client is made
        reason = str(error).strip() or type(error).__name__
        return f"{constants.ENDPOINT}: {reason.splitlines()[0]}"
    return None


def _quoted(source: str | Path) -> str:
    """Return the name, and the path that was probably meant, as a question."""
    close = _closest_path(Path(source))
    return repr(str(source)) if close is None else f"{str(source)!r} (did you mean {close}?)"


def _closest_path(given: Path) -> Path | None:
    """Return what is there under nearly the same names; None where no name comes close."""
    found = Path(given.anchor)
    for part in given.relative_to(found).parts:
        name = part
        if not _is_there(found / part):
            try:
                names = [each.name for each in found.iterdir()]
            except (OSError, ValueError):
                return None
            close = difflib.get_close_matches(part, names, n=1)
            if not close:
                return None
            name = close[0]
        found /= name
    return found
