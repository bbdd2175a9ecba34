"""Colours, the same for the same thing in every figure, told apart by the colour-blind, on light and dark.

Figures are drawn in the light colours. Each is also the name of a CSS variable, so that the page can show
the very same drawing on a dark ground. Hues follow Okabe and Ito, darkened to read on white; policies also
differ in marker and, beyond the eleventh, in the line's pattern, for those who see no hues at all.

What became of a token is an area, in tints near the ground. A policy is a line or a label, in full colours.
So no policy is taken for a cause.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from milepost.report.study import CLAIRVOYANT

__all__ = ["COLOURS", "PARTS", "Colour", "Look", "looks"]


@dataclass(frozen=True, slots=True)
class Colour:
    """One colour on a light and on a dark ground, as ``#rrggbb``."""

    light: str
    dark: str


#: By name. Light colours differ from one another: they are how the page finds them again in a drawing.
COLOURS = {
    "ground": Colour("#ffffff", "#171a21"),
    "ink": Colour("#1f2430", "#e8eaf0"),
    "muted": Colour("#5d6575", "#a3abba"),
    "rule": Colour("#dfe2e8", "#343a46"),
    "faint": Colour("#f1f3f6", "#20242d"),
    "reused": Colour("#6fb9bf", "#1d6f78"),
    "alignment": Colour("#f3df93", "#8a7a2e"),
    "placement": Colour("#f4b983", "#9c5f2c"),
    "eviction": Colour("#d97b6c", "#8c2f28"),
    "reset": Colour("#c9a9dd", "#6d4a8a"),
    "unseen": Colour("#d3d7de", "#4a5160"),
    "no-parting": Colour("#c3c8d1", "#59606e"),
    "known-place": Colour("#2c4a78", "#9dbdf0"),
    "new-place": Colour("#86a7d3", "#5578ab"),
    "policy-0": Colour("#0b6fb8", "#58a9e6"),
    "policy-1": Colour("#d1570b", "#f28a45"),
    "policy-2": Colour("#0a8f68", "#3cc39b"),
    "policy-3": Colour("#b3528a", "#e08fbd"),
    "policy-4": Colour("#b98300", "#ecb83a"),
    "policy-5": Colour("#6449a6", "#a890e6"),
    "policy-6": Colour("#80522a", "#d6ad8e"),
    "policy-7": Colour("#5f7a12", "#a9c653"),
    "policy-8": Colour("#9c2f4b", "#f0667c"),
    "policy-9": Colour("#2f5d50", "#86bba9"),
    "policy-10": Colour("#7d7f86", "#8b8d94"),
    "bound": Colour("#3f4654", "#c4cad6"),
}

#: What became of a token: name in the accounts, and in words. From the bottom of a stack upwards.
PARTS = {
    "reused": "reused",
    "alignment": "alignment (off the grid)",
    "placement": "placement (no state there)",
    "eviction": "eviction (state dropped)",
    "unseen": "unseen (new)",
}

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "<", ">", "h")
_DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = ("-", (0, (5, 1.6)), (0, (1.4, 1.4)))
_NUM_HUES = 11
_OWN_HUES = {
    "learned": 0,
    "vllm": 1,
    "marconi": 2,
    "sglang": 3,
    "histogram-dp": 4,
    "balanced": 5,
    "dense": 6,
    "tensorrt": 7,
    "tail+junction": 8,
    "tail": 9,
    "none": 10,
}


@dataclass(frozen=True, slots=True)
class Look:
    """How one policy is drawn."""

    colour: str
    marker: str
    dashes: str | tuple[int, tuple[float, ...]]


def looks(policies: Sequence[str]) -> dict[str, Look]:
    """Return the look of each policy: its own hue if it has one, so that two reports compare.

    Others, and further ones of a kind, take the hues that are left; then lines are dashed.

    >>> looks(["tail", "dense:64"])["dense:64"] == looks(["learned", "dense:64", "none"])["dense:64"]
    True
    """
    found: dict[str, Look] = {}
    waiting: list[str] = []
    taken: set[int] = set()
    for policy in dict.fromkeys(policies):
        hue = _OWN_HUES.get(policy.partition(":")[0])
        if policy == CLAIRVOYANT:
            found[policy] = Look(COLOURS["bound"].light, "*", (0, (1.4, 1.4)))
        elif hue is None or hue in taken:
            waiting.append(policy)
        else:
            taken.add(hue)
            found[policy] = _look(hue, 0)
    # Blue stays with the default policy.
    free = [hue for hue in range(1, _NUM_HUES) if hue not in taken]
    for number, policy in enumerate(waiting):
        if number < len(free):
            found[policy] = _look(free[number], 0)
        else:
            lap, hue = divmod(number - len(free), _NUM_HUES - 1)
            found[policy] = _look(hue + 1, lap + 1)
    return {policy: found[policy] for policy in dict.fromkeys(policies)}


def _look(hue: int, lap: int) -> Look:
    return Look(COLOURS[f"policy-{hue}"].light, _MARKERS[hue], _DASHES[lap % len(_DASHES)])
