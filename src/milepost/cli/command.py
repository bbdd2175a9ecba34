"""A command as all of ours are: summarised by a whole sentence, and known by its older option names too."""

from typer.core import TyperCommand, TyperGroup

__all__ = ["Command", "Group"]

# What was renamed: help names the new one, and the old one still works.
_OLD_NAMES = {"--memory": "--capacity"}
_WHOLE = 1 << 16


class Command(TyperCommand):
    """One command of the program."""

    def get_short_help_str(self, limit: int = _WHOLE) -> str:
        """Return the first sentence of the help. The list of commands wraps it; click would cut it."""
        return super().get_short_help_str(max(limit, _WHOLE))

    def parse_args(self, ctx, args):  # type: ignore[no-untyped-def]  # typer's click has no public types
        """Read the arguments, older names as the new ones."""
        return super().parse_args(ctx, [_renamed(word) for word in args])


class Group(TyperGroup):
    """Several commands under one name."""

    def get_short_help_str(self, limit: int = _WHOLE) -> str:
        """Return the first sentence of the help, as of a command."""
        return super().get_short_help_str(max(limit, _WHOLE))


def _renamed(word: str) -> str:
    name, equals, value = word.partition("=")
    return _OLD_NAMES.get(name, name) + equals + value
