"""Measurements of the llama.cpp engine against llama-cpp-python's own class, on random GGUF models."""
