"""Request bodies of every API as one of two things: a conversation in OpenAI's chat shape, or a plain prompt.

Each module knows one dialect and knows nothing of tokenizers. What a dialect keeps on the server (a stored
prompt, an earlier response) is an error here: a part of the prompt is no prompt.
"""

from milepost.traces.dialects.bodies import Prompt, prompts_of_body
from milepost.traces.dialects.chat_body import ChatBody

__all__ = ["ChatBody", "Prompt", "prompts_of_body"]
