"""Prompts as people write them, texts and chat messages, to the tokens that a model reads.

    prompt_tokenizer  a tokenizer of Hugging Face's kind: texts to tokens, messages to a text
    opening           ... by its name
    messages          messages of clients in the one shape that templates understand
    conversation      messages to tokens, and where each of them ends
    heads             what is remembered of that from turn to turn

The engine and the log reader share this, so a logged prompt and a served one are the same tokens. Nothing
here knows a tensor, a log or an engine.
"""
