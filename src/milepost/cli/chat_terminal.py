"""A conversation on a terminal, through a pipe, or in JSON."""

import json
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any, Protocol

import typer

from milepost.errors import InvalidRequestError

__all__ = ["Session", "converse", "converse_in_json"]


class Whole(Protocol):
    """A whole answer."""

    def summary(self) -> str:
        """Return one line on what was reused and what it took."""

    def as_json(self) -> dict[str, Any]:
        """Return all fields as plain values."""


class Session(Protocol):
    """A conversation, with an engine in this process or with a server."""

    @property
    def description(self) -> str:
        """One line on who answers."""

    @property
    def completion(self) -> Whole | None:
        """The last whole answer; None where there is none, or the last one was stopped."""

    def reset(self) -> None:
        """Forget everything but the system message."""

    def answer(self, said: Sequence[Mapping[str, Any]]) -> Generator[str]:
        """Yield the answer to further messages, piece by piece, and keep it."""


# A terminal obeys control characters; a model has no business with them but for line ends and tabs.
_HARMLESS = {code: "\ufffd" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}
_HELP = """/reset   forget what was said (the system message stays)
/help    this list
Ctrl-C   stop the answer; what it said so far is kept
Ctrl-D   end"""


def converse(session: Session, *, read_line: Callable[[], str] | None = None) -> None:
    """Answer line after line until there is none.

    Args:
        session: The conversation.
        read_line: Gives the next line, or raises EOFError. Unless given, standard input's: with a prompt and
            line editing where that is a terminal, where also an error does not end the conversation.
    """
    is_terminal = sys.stdin.isatty()
    if read_line is None:
        read_line = _terminal_line if is_terminal else _piped_lines(sys.stdin).__next__
    _say(f"{session.description}; /help for help" if is_terminal else session.description)
    while True:
        try:
            line = read_line().strip()
        except (EOFError, StopIteration):
            return
        except KeyboardInterrupt:
            if not is_terminal:
                raise
            _say("\nCtrl-D ends")
            continue
        if line.startswith("/"):
            _obey(session, line)
        elif line:
            _answer(session, line, survives=is_terminal)


def converse_in_json(session: Session, lines: Iterable[str]) -> None:
    """Answer each line, a message in JSON or a list of them, with a completion in JSON.

    Raises:
        InvalidRequestError: a line is no message, or cannot be answered; those before it were.
    """
    _say(session.description)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            for _ in session.answer(_messages_of(line)):
                pass
        except InvalidRequestError as error:
            raise InvalidRequestError(f"line {number}: {error}") from error
        assert session.completion is not None
        typer.echo(json.dumps(session.completion.as_json()))


def _answer(session: Session, line: str, *, survives: bool) -> None:
    try:
        # Closed at once, wherever an interrupt falls: what was said so far is kept then.
        with closing(session.answer([{"role": "user", "content": line}])) as answer:
            for text in answer:
                typer.echo(text.translate(_HARMLESS) if sys.stdout.isatty() else text, nl=False)
    except KeyboardInterrupt:
        if not survives:
            raise
        typer.echo()
        _say("(stopped)")
        return
    except InvalidRequestError as error:
        if not survives:
            raise
        _say(f"Error: {error}")
        return
    typer.echo()
    if session.completion is not None:
        _say(session.completion.summary())


def _obey(session: Session, line: str) -> None:
    if line == "/reset":
        session.reset()
        _say("(all forgotten)")
    elif line == "/help":
        _say(_HELP)
    else:
        _say(f"there is no command {line.split(maxsplit=1)[0]}; /help lists them")


def _messages_of(line: str) -> list[Mapping[str, Any]]:
    try:
        said = json.loads(line)
    except ValueError as error:
        raise InvalidRequestError(
            f"{line.strip()[:60]!r} is not JSON ({error}); write a text in quotes, or a message"
        ) from error
    if isinstance(said, str):
        return [{"role": "user", "content": said}]
    if isinstance(said, dict):
        return [said]
    if isinstance(said, list) and said and all(isinstance(message, dict) for message in said):
        return said
    raise InvalidRequestError(
        f"{line.strip()[:60]} is no message; write {{'role': ..., 'content': ...}} in JSON, or several"
    )


def _terminal_line() -> str:
    with suppress(ImportError):
        import readline  # noqa: F401 (gives input() editing and history)
    return input("> ")


def _piped_lines(stream: Iterable[str]) -> Iterator[str]:
    yield from stream


def _say(text: str) -> None:
    """Print what is not the model's, in grey where that can be."""
    typer.secho(text, dim=True, err=True)
