"""API keys, from where they are no argument that others on the machine can read."""

from pathlib import Path

from milepost.errors import ConfigurationError

__all__ = ["read_keys"]


def read_keys(path: Path | None, variable: str | None) -> tuple[str, ...]:
    """Return the keys of a file, one a line, and those of a variable, with commas between; each once.

    Raises:
        ConfigurationError: the file cannot be read, or has none.
    """
    lines: list[str] = []
    if path is not None:
        try:
            lines = [line.strip() for line in path.read_text(encoding="ascii").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path} cannot be read as API keys: {error}") from error
        lines = [line for line in lines if line and not line.startswith("#")]
        if not lines:
            raise ConfigurationError(f"{path} has no API key; write one a line, or leave out the option")
    named = [key.strip() for key in (variable or "").split(",")]
    return tuple(dict.fromkeys([*lines, *(key for key in named if key)]))
