"""Measurements of the vLLM plugin, on tiny random models that vLLM runs on a CPU."""
