"""Measurements inside SGLang, on its own cache and pools (`make sglang-test` makes the environment)."""
