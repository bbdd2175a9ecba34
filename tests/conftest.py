"""Shared by all tests."""

from hypothesis import settings

# The first example may wait for a kernel to be compiled, and a busy machine may be slow: no test is timed.
settings.register_profile("milepost", deadline=None)
settings.load_profile("milepost")
