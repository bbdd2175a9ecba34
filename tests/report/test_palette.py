"""The colours: no policy is taken for a cause, and no cause for another, on a light ground or a dark one."""

from itertools import combinations

import numpy as np
import pytest

from milepost.report.palette import COLOURS, PARTS

POLICIES = [name for name in COLOURS if name.startswith("policy-")] + ["bound"]
# A replayed cache is never reset; one that serves is.
CAUSES = (*PARTS, "reset")
# Euclidean distance in CIELAB (1976); 2 is just seen side by side, 20 is seen across a page.
ACROSS_A_PAGE = 20


def lab(colour: str) -> np.ndarray:
    """CIELAB of an sRGB colour ``#rrggbb``, under D65."""
    channels = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    to_xyz = [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.072175],
        [0.0193339, 0.119192, 0.9503041],
    ]
    xyz = np.array(to_xyz) @ linear / np.array([0.95047, 1.0, 1.08883])
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def distance(first: str, second: str) -> float:
    return float(np.linalg.norm(lab(first) - lab(second)))


def test_distance_is_that_of_the_standard():
    assert distance("#ffffff", "#000000") == pytest.approx(100, abs=0.1)
    assert distance("#ff0000", "#00ff00") == pytest.approx(170.6, abs=0.2)


@pytest.mark.parametrize("ground", ["light", "dark"])
def test_no_policy_looks_like_what_became_of_a_token(ground):
    for policy in POLICIES:
        for part in CAUSES:
            colours = (getattr(COLOURS[name], ground) for name in (policy, part))
            assert distance(*colours) > ACROSS_A_PAGE, (policy, part)


@pytest.mark.parametrize("ground", ["light", "dark"])
def test_what_became_of_a_token_is_told_apart(ground):
    for pair in combinations(CAUSES, 2):
        assert distance(*(getattr(COLOURS[name], ground) for name in pair)) > ACROSS_A_PAGE, pair


@pytest.mark.parametrize("ground", ["light", "dark"])
def test_policies_are_told_apart_from_one_another(ground):
    for pair in combinations(POLICIES, 2):
        assert distance(*(getattr(COLOURS[name], ground) for name in pair)) > ACROSS_A_PAGE, pair
