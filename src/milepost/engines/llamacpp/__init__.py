"""GGUF models on llama.cpp, through the low-level functions of llama-cpp-python.

    library     the loaded library, its log, and one model's weights
    kv_types    number formats of cached keys and values
    context     one ``llama_context``: calls whose every return code is checked
    payload     states and pieces of KV as opaque bytes that say whose they are
    transfer    payloads out of a context and back into it
    places      where live sequences stand: a context each (strict), or one for all (fast)
    driver      the seam: ``engines.base.Driver`` for all of this
    probe       what holds for this model, found out when it is opened
    opening     from a path to a ``ServedModel``

Bits do not hang on where a prompt is cut, as long as flash attention is off (or the values compressed), no
piece of a prefill has one token, a token's place in the KV is a function of its position, and a prefill call
holds one prompt. *Strict* keeps to all four; *fast* to the first.
"""
