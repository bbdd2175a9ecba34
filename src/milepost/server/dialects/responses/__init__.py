"""``/v1/responses``, as OpenAI has it, for clients that keep their conversations themselves.

items     what a conversation is made of
body      what a request may hold
prompt    its items as messages for the model's template
answer    what a model says as items, whole or as they come
routes    both together, over the engine
"""
