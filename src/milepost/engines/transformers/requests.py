"""What a request may ask for, and how it is checked before anything is queued."""

from collections.abc import Sequence
from typing import TypedDict

from milepost.engines.transformers.driver import Driver
from milepost.engines.transformers.generation import GenerationRequest
from milepost.engines.transformers.sampling import Sampling
from milepost.engines.transformers.text import Tokenizer, checked_text
from milepost.errors import InvalidRequestError
from milepost.tokens import TokenArray, TokenLike, as_tokens

__all__ = ["Prompt", "RequestOptions", "RequestReader"]

Prompt = str | TokenLike


class RequestOptions(TypedDict, total=False):
    """Options of one request; :meth:`RequestReader.read` says what they mean."""

    max_new_tokens: int
    temperature: float
    top_k: int | None
    top_p: float
    seed: int
    stop: str | Sequence[str]
    ignore_end_token: bool
    tenant: str


class RequestReader:
    """Turns prompts and options into checked requests to one model."""

    def __init__(self, *, driver: Driver, tokenizer: Tokenizer | None) -> None:
        self._driver = driver
        self._tokenizer = tokenizer

    def encode(self, prompt: Prompt) -> TokenArray:
        """Return ``prompt`` as checked tokens of this model.

        Raises:
            InvalidRequestError: it is empty, longer than the model's context, holds ids outside the
                vocabulary, or is text and there is no tokenizer or it is no Unicode.
        """
        if isinstance(prompt, str):
            if self._tokenizer is None:
                raise InvalidRequestError(
                    "the prompt is text and this model has no tokenizer; pass token ids"
                )
            prompt = self._tokenizer.encode(checked_text(prompt))
        tokens = as_tokens(prompt, vocabulary_size=self._driver.vocabulary_size)
        limit = self._driver.context_length
        if limit is not None and tokens.size >= limit:
            raise InvalidRequestError(
                f"the prompt has {tokens.size:,} tokens and the model's context {limit:,}, of which at least "
                "one is for the answer; shorten the prompt"
            )
        return tokens

    def read(
        self,
        prompt: Prompt,
        *,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        seed: int = 0,
        stop: str | Sequence[str] = (),
        ignore_end_token: bool = False,
        tenant: str = "",
    ) -> GenerationRequest:
        """Return the request that is asked for.

        Args:
            prompt: Text or token ids.
            max_new_tokens: Most tokens to generate.
            temperature: 0 is greedy.
            top_k: Draw from this many most likely tokens.
            top_p: Draw from the fewest tokens that hold this much probability.
            seed: Of the request's own random stream.
            stop: Strings that end the answer.
            ignore_end_token: Generate on past the model's end token.
            tenant: Prompts of different tenants share no state, no KV and no match; they share the budget.

        Raises:
            InvalidRequestError: the prompt or an option breaks a rule.
        """
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        if stops and self._tokenizer is None:
            raise InvalidRequestError("stop strings need a tokenizer, and this model has none")
        tokens = self.encode(prompt)
        limit = self._driver.context_length
        room = max_new_tokens if limit is None else min(max_new_tokens, limit - tokens.size)
        return GenerationRequest(
            tokens=tokens,
            max_new_tokens=room,
            sampling=Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed),
            stop=stops,
            end_tokens=frozenset() if ignore_end_token else self._driver.end_tokens,
            tenant=tenant,
        )
