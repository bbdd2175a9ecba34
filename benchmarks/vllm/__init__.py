"""Measurements of the vLLM plugin, on tiny random models that vLLM runs on a CPU.

The commands are here: the package itself compares; ``timing``, ``pools``, ``overhead``, ``scenarios`` and
``models`` are run by their names. What they are made of is in folders: ``traffic`` (what is asked),
``servers`` (who is asked) and ``comparing`` (how settings are chosen and judged). ``child`` gives each run a
process.
"""
