"""The text that the embedded model reads: topics, sources and docstrings of the Python that runs this."""

import ast
import random
from collections.abc import Iterator
from functools import cache

from milepost.embedded.library_text import LibraryText, library_sources, library_topics

__all__ = ["Corpus"]

# How often each kind is read. Topics are a fortieth of the characters, and what the model should sound like.
_SHARES = {"topics": 0.2, "docstrings": 0.25, "sources": 0.55}


class Corpus:
    """Windows of text, drawn evenly over the characters of each kind."""

    def __init__(self, *, held_out: bool) -> None:
        sources = library_sources(held_out=held_out)
        self._texts = {
            "topics": library_topics(held_out=held_out),
            "docstrings": tuple(_docstrings(sources)),
            "sources": sources,
        }
        self._weights = {kind: [len(text.text) for text in texts] for kind, texts in self._texts.items()}

    def window(self, num_characters: int, *, rng: random.Random) -> str:
        """Return at most so many characters that stand together, from the start of a line."""
        kind = rng.choices(list(_SHARES), weights=list(_SHARES.values()))[0]
        (chosen,) = rng.choices(self._texts[kind], weights=self._weights[kind])
        start = rng.randrange(max(1, len(chosen.text) - num_characters))
        start = chosen.text.rfind("\n", 0, start) + 1
        return chosen.text[start : start + num_characters].rstrip()

    def everything(self) -> Iterator[str]:
        """Yield every text."""
        for texts in self._texts.values():
            for text in texts:
                yield text.text


@cache
def _docstrings(sources: tuple[LibraryText, ...]) -> tuple[LibraryText, ...]:
    """Return one text a module: each thing's name, arguments and documentation, as ``help()`` shows them."""
    made = (
        LibraryText(f"docstrings/{source.name}", "\n\n".join(_documented(source.text))) for source in sources
    )
    return tuple(text for text in made if len(text.text) >= 1_000)


def _documented(source: str) -> Iterator[str]:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (
            text := ast.get_docstring(node)
        ):
            if isinstance(node, ast.FunctionDef):
                yield f"{node.name}({ast.unparse(node.args)})\n" + _indented(text)
            elif isinstance(node, ast.ClassDef):
                yield f"class {node.name}\n" + _indented(text)
            else:
                yield text


def _indented(text: str) -> str:
    return "\n".join("    " + line if line else "" for line in text.split("\n"))
