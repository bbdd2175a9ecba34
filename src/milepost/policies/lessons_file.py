"""What a policy has learned, as a file: a warm start for the next process. JSON under a checksum."""

from pathlib import Path
from typing import Any

import orjson
import xxhash

from milepost.errors import ConfigurationError
from milepost.policies.base import CachePolicy
from milepost.whole_file import written_whole

__all__ = ["load_lessons", "save_lessons"]

_FORMAT = "milepost lessons 4"
# Those do not tell prompts with branch points from others, and the older one not in what layout they were
# learned.
_OLDER_FORMATS = ("milepost lessons 2", "milepost lessons 3")


def save_lessons(policy: CachePolicy, path: Path) -> None:
    """Write what ``policy`` has learned to ``path``, all of it or nothing.

    Raises:
        ConfigurationError: the policy learns nothing that could be kept.
        OSError: the file cannot be written.
    """
    if policy.lessons is None:
        raise ConfigurationError("the policy learns nothing that could be kept; 'learned' does")
    content = orjson.dumps(policy.lessons.export())
    whole = {"format": _FORMAT, "checksum": xxhash.xxh3_128_hexdigest(content), "lessons": content.decode()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as unfinished:
        unfinished.write_bytes(orjson.dumps(whole))


def load_lessons(policy: CachePolicy, path: Path) -> None:
    """Let a new ``policy`` start from what another one had learned.

    Raises:
        ConfigurationError: ``path`` is no such file, is damaged or of another version, or the policy learns
            nothing that could be kept. Make a new policy then: this one may have learned a part.
        OSError: the file cannot be read.
    """
    if policy.lessons is None:
        raise ConfigurationError("the policy learns nothing that could be kept; 'learned' does")
    try:
        whole: Any = orjson.loads(path.read_bytes())
        if whole["format"] not in (_FORMAT, *_OLDER_FORMATS):
            raise ValueError(f"its format is {whole['format']!r}, not {_FORMAT!r}")
        if xxhash.xxh3_128_hexdigest(whole["lessons"].encode()) != whole["checksum"]:
            raise ValueError("its checksum does not match")
        policy.lessons.restore(orjson.loads(whole["lessons"]))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ConfigurationError(
            f"{path} does not hold what a policy has learned ({error}); remove it to start anew"
        ) from error
