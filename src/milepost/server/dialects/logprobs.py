"""Log-probabilities in the shapes of OpenAI's two APIs."""

from collections.abc import Iterable, Sequence

from openai.types.chat.chat_completion_token_logprob import ChatCompletionTokenLogprob, TopLogprob
from typing_extensions import TypedDict

from milepost.engines.sampling import TokenLogprobs
from milepost.engines.text import Tokenizer

__all__ = ["PlainLogprobs", "chat_logprobs", "plain_logprobs"]


class PlainLogprobs(TypedDict):
    """Log-probabilities as completions have them, an entry a token in each."""

    text_offset: list[int]
    token_logprobs: list[float | None]
    tokens: list[str]
    top_logprobs: list[dict[str, float] | None]


def chat_logprobs(
    tokenizer: Tokenizer, found: Iterable[TokenLogprobs], *, num_top: int
) -> list[ChatCompletionTokenLogprob]:
    """Return them as chat completions have them.

    Args:
        tokenizer: Writes the tokens.
        found: Of each token.
        num_top: The likeliest to tell of each.
    """
    return [
        ChatCompletionTokenLogprob(
            token=(text := tokenizer.decode([each.token])),
            bytes=_bytes(text),
            logprob=each.logprob,
            top_logprobs=[
                TopLogprob(token=(other := tokenizer.decode([token])), bytes=_bytes(other), logprob=logprob)
                for token, logprob in each.top[:num_top]
            ],
        )
        for each in found
    ]


def plain_logprobs(
    tokenizer: Tokenizer, found: Sequence[TokenLogprobs], *, offset: int, num_top: int
) -> PlainLogprobs:
    """Return them as completions have them.

    Args:
        tokenizer: Writes the tokens.
        found: Of each token, in order.
        offset: Characters of the answer before the first.
        num_top: The likeliest to tell of each.
    """
    texts = [tokenizer.decode([each.token]) for each in found]
    offsets = []
    for text in texts:
        offsets.append(offset)
        offset += len(text)
    return PlainLogprobs(
        text_offset=offsets,
        token_logprobs=[each.logprob for each in found],
        tokens=texts,
        top_logprobs=[
            {tokenizer.decode([token]): logprob for token, logprob in each.top[:num_top]} for each in found
        ],
    )


def _bytes(text: str) -> list[int] | None:
    """Return the text's bytes; None for a token that ends inside a character."""
    return None if "�" in text else list(text.encode())
