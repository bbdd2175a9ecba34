"""Who is asked: vLLM with a model, or its scheduler alone; how each is set, fed and watched."""
