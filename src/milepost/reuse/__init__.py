"""Learned chance and time of the next use of what is cached.

:mod:`milepost.overlap` says *where* the next request will part from a prompt; this package says *whether and
when* one comes at all. A :class:`Sighting` is one prompt as it was seen, and stays responsible for the part
of its tokens that no later prompt has passed through. A :class:`Junction` is a place where prompts have
parted. Both age from their last use, in requests, and a :class:`HazardTable` learns from all of them, cached
or not, how likely the next request is at each age, by what is known of them. :class:`ReturnRates` say how
many requests there will be in all.
"""

from milepost.reuse.hazard import NUM_AGE_BINS, HazardTable, Tracked
from milepost.reuse.returns import ReturnRates
from milepost.reuse.sighting import Junction, Sighting

__all__ = ["NUM_AGE_BINS", "HazardTable", "Junction", "ReturnRates", "Sighting", "Tracked"]
