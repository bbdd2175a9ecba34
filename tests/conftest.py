"""Shared by all tests. Its presence here puts ``tests/`` on the path, so that ``import families`` works."""
