"""What runs models: each engine drives the same prefix cache with payloads of its own."""
