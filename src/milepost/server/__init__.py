"""A service for one machine: clients of OpenAI's and Anthropic's APIs over one engine.

    asked       access (who asks), dialects (bodies in, answers out)
    done        worker (the one thread that owns the engine), ticket (one answer on its way), admission
    shown       usage, faults

``docs/serve.md`` is for who runs it. An import registers nothing and opens no socket.
"""
