"""Learned chance and time of the next use of what is cached.

:mod:`milepost.overlap` says *where* the next request will diverge from a prompt; this package says *whether
and when* one comes at all. What is :class:`Tracked` (a prompt as it was seen, a place where prompts have
diverged) ages from its last use, in requests, and a :class:`HazardTable` learns from all of it, cached or
not, how likely the next request is at each age, by what is known of it. :class:`ReturnRates` say how many
requests there will be in all.
"""

from milepost.reuse.hazard import NUM_AGE_BINS, HazardTable, Tracked
from milepost.reuse.returns import ReturnRates

__all__ = ["NUM_AGE_BINS", "HazardTable", "ReturnRates", "Tracked"]
