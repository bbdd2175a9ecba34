"""``/v1/messages``, as Anthropic has it, so that coding agents run on it.

body      what a request may hold
prompt    its system prompt, messages and tools as the model's template takes them
answer    what a model says as blocks, whole or as they come
routes    both together, over the engine
"""
