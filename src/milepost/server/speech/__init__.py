"""What an answer's text says, and how what was said comes back.

    pieces    text, reasoning, and calls of tools
    calls     how models write calls of tools
    markup    how one model's template marks all that
    reader    an answer's text to pieces, as it comes
    sealed    reasoning as clients carry it unread
    speech    all of it, for one model

Nothing here knows an engine or a server.
"""
