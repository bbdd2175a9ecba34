"""What a request may ask for, and how it is checked before anything is queued."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypedDict, Unpack

from milepost.counts import as_count, as_number
from milepost.engines.base import Driver
from milepost.engines.generation_settings import GenerationSettings
from milepost.engines.option_values import text_value, texts, truth
from milepost.engines.prompts import Continuation, Continued, Prompt, PromptReader
from milepost.engines.sampling import Sampling
from milepost.engines.text import Tokenizer, checked_text
from milepost.errors import InvalidRequestError
from milepost.pins import Pin, PinLike
from milepost.tokens import TokenArray

__all__ = [
    "Continuation",
    "Continued",
    "GenerationRequest",
    "Prompt",
    "RequestOptions",
    "RequestReader",
    "checked_scoring",
    "checked_tenant",
]

# Below it, no two logits are near enough for a draw to be anything but the likeliest token (as in vLLM).
_LEAST_TEMPERATURE = 1e-5


class RequestOptions(TypedDict, total=False):
    """Options of one request. None is as good as not given.

    What is not given is as the model's ``generation_config`` says, and else as ``generate`` of transformers
    has it, of which 50 for ``top_k`` is the one to know. ``docs/requests.md`` has the whole of it.

    Attributes:
        max_new_tokens: Most tokens to generate; 128 where the model does not say either.
        temperature: 0 is greedy; above, logits are divided by it and tokens are drawn.
        top_k: Draw from this many most likely tokens; 0 or -1 for all.
        top_p: Draw from the fewest most likely tokens that hold this much probability.
        min_p: Draw from tokens with at least this share of the likeliest one's probability.
        repetition_penalty: Divides (or multiplies, below 0) the logits of tokens in prompt and answer.
        presence_penalty: Taken off the logits of tokens in the answer, once each.
        frequency_penalty: Taken off the logits of tokens in the answer, as often as they are in it.
        seed: Of the request's own random stream; 0 unless given.
        stop: Strings that end the answer and are no part of it, in place of the model's ``stop_strings``.
        ignore_end_token: Generate on past the model's end token.
        logprobs: Give the log-probabilities of each token and of this many of the likeliest.
        tools: For the chat template of messages.
        chat_template_kwargs: For the chat template, as ``{"enable_thinking": False}``.
        continue_final_message: Whether the answer continues the last message; where that is the assistant's,
            unless said otherwise.
        breakpoints: Positions in tokens where later prompts may diverge from this one, beside message ends.
        pins: Positions in tokens, each with seconds to live, as ``[(5_000, 300)]``: a state is captured
            there, at the last place for one, and not evicted before its time, as long as all pins together
            take no more than half of the capacity; then the oldest goes first, and the report says so. Beside
            those that cache points in messages ask for.
        tenant: Prompts of different tenants share no state, no KV and no match; they share the budget.
    """

    max_new_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    seed: int | None
    stop: str | Sequence[str] | None
    ignore_end_token: bool | None
    logprobs: int | None
    tools: Sequence[Any] | None
    chat_template_kwargs: Mapping[str, Any] | None
    continue_final_message: bool | None
    breakpoints: Sequence[int] | None
    pins: Sequence[PinLike] | None
    tenant: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """What is asked for, checked.

    Attributes:
        tokens: The prompt.
        breakpoints: Where its messages end, or its client expects others to diverge from it, ascending.
        pins: What its client asks to have kept for some time, ascending.
        max_new_tokens: Most tokens to generate; fewer where the model's context ends.
        is_cut_by_context: Whether that is fewer than were asked for.
        sampling: How tokens are chosen.
        stop: Strings that end the answer and are not part of it.
        end_tokens: Token ids that end the answer and are not part of it.
        tenant: Whose prompt it is; tenants share nothing.
    """

    tokens: TokenArray
    max_new_tokens: int
    breakpoints: tuple[int, ...] = ()
    pins: tuple[Pin, ...] = ()
    is_cut_by_context: bool = False
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    end_tokens: frozenset[int] = frozenset()
    tenant: str = ""


class RequestReader:
    """Turns prompts and options into checked requests to one model."""

    def __init__(
        self,
        *,
        driver: Driver,
        tokenizer: Tokenizer | None,
        settings: GenerationSettings,
        template_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._driver = driver
        self._tokenizer = tokenizer
        self._settings = settings
        self._prompts = PromptReader(
            tokenizer=tokenizer,
            vocabulary_size=driver.vocabulary_size,
            context_length=driver.context_length,
            media_tokens=driver.media_tokens,
            template_options=template_options,
        )

    def encode(self, prompt: Prompt) -> TokenArray:
        """Return ``prompt`` as checked tokens of this model.

        Raises:
            InvalidRequestError: it is empty, longer than the model's context, holds ids outside the
                vocabulary, is text and there is no tokenizer or it is no Unicode, or is messages that the
                chat template refuses.
        """
        return self._prompts.read(prompt).tokens

    def read_continuations(self, context: Prompt, continuations: Iterable[Continuation]) -> list[Continued]:
        """Return a context and what continues it as tokens; see :meth:`PromptReader.read_continuations`."""
        return self._prompts.read_continuations(context, continuations)

    def read(self, prompt: Prompt, **options: Unpack[RequestOptions]) -> GenerationRequest:
        """Return the request that is asked for.

        Args:
            prompt: A text, chat messages, or token ids.
            options: See :class:`RequestOptions`.

        Raises:
            InvalidRequestError: the prompt or an option breaks a rule.
            TypeError: there is no such option.
        """
        given = _given(options)
        encoded = self._prompts.read(
            prompt,
            tools=given.get("tools"),
            chat_template_kwargs=given.get("chat_template_kwargs"),
            continue_final_message=_optional(given, "continue_final_message", truth),
            breakpoints=given.get("breakpoints", ()),
            pins=given.get("pins", ()),
        )
        settings = self._settings.for_request(
            encoded.tokens,
            _generation_options(given),
            context_length=self._driver.context_length,
            ignore_end_token=truth("ignore_end_token", given.get("ignore_end_token", False)),
            presence_penalty=_penalty(given, "presence_penalty"),
            frequency_penalty=_penalty(given, "frequency_penalty"),
        )
        if settings.stop and self._tokenizer is None:
            raise InvalidRequestError("stop strings need a tokenizer, and this model has none")
        return GenerationRequest(
            tokens=encoded.tokens,
            breakpoints=encoded.breakpoints,
            pins=encoded.pins,
            max_new_tokens=settings.max_new_tokens,
            is_cut_by_context=settings.is_cut_by_context,
            sampling=Sampling(
                processors=settings.processors,
                draws=settings.draws,
                seed=_count("seed", given.get("seed", 0), least=-(2**63), most=2**64 - 1),
                num_logprobs=self._num_logprobs(given),
            ),
            stop=settings.stop,
            end_tokens=settings.end_tokens,
            tenant=checked_tenant(given.get("tenant", "")),
        )

    def _num_logprobs(self, given: Mapping[str, Any]) -> int | None:
        if "logprobs" not in given:
            return None
        return _count("logprobs", given["logprobs"], least=0, most=self._driver.vocabulary_size)


def checked_tenant(tenant: Any) -> str:
    """Return the name of who asks, if it is a text."""
    return checked_text(text_value("tenant", tenant))


def checked_scoring(requests: Any) -> list[tuple[Prompt, Sequence[Continuation]]]:
    """Return contexts with their continuations, if that is what was given; what they are is not looked at."""
    if isinstance(requests, str | bytes | Mapping) or not isinstance(requests, Iterable):
        raise InvalidRequestError(
            f"requests is {type(requests).__name__}; give a list of pairs, a context and its continuations"
        )
    found = []
    for each in requests:
        if isinstance(each, str | bytes | Mapping) or not isinstance(each, Sequence) or len(each) != 2:
            raise InvalidRequestError(f"a request is {each!r:.100}; give a context and its continuations")
        context, continuations = each
        if isinstance(continuations, str | bytes | Mapping) or not isinstance(continuations, Sequence):
            raise InvalidRequestError(
                f"the continuations are {continuations!r:.100}; give a list of them, be it of one"
            )
        if not continuations:
            raise InvalidRequestError("a context has no continuations; give at least one, or leave it out")
        if all(isinstance(token, int) for token in continuations):
            raise InvalidRequestError("the continuations are token ids; give a list of such lists")
        found.append((context, continuations))
    return found


_count = partial(as_count, error=InvalidRequestError)
_number = partial(as_number, error=InvalidRequestError)


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    known = RequestOptions.__annotations__
    for name in options:
        if name not in known:
            raise TypeError(f"a request has no option {name!r}; its options are {', '.join(known)}")
    return {name: value for name, value in options.items() if value is not None}


def _generation_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that ``generation_config`` knows too, under its names."""
    found: dict[str, Any] = {}
    if "max_new_tokens" in given:
        found["max_new_tokens"] = _count("max_new_tokens", given["max_new_tokens"], least=1)
    if "temperature" in given:
        temperature = _number(
            "temperature", given["temperature"], rule="0 (greedy) to 100", least=0.0, most=100.0
        )
        found["do_sample"] = temperature >= _LEAST_TEMPERATURE
        if found["do_sample"]:
            found["temperature"] = temperature
    if "top_k" in given:
        found["top_k"] = max(0, _count("top_k", given["top_k"], least=-1))
    if "top_p" in given:
        found["top_p"] = _number(
            "top_p", given["top_p"], rule="more than 0 and at most 1", least=5e-324, most=1.0
        )
    if "min_p" in given:
        found["min_p"] = _number("min_p", given["min_p"], rule="0 to 1", least=0.0, most=1.0)
    if "repetition_penalty" in given:
        found["repetition_penalty"] = _number(
            "repetition_penalty", given["repetition_penalty"], rule="more than 0; 1 is none", least=5e-324
        )
    if "stop" in given:
        found["stop_strings"] = list(texts("stop", given["stop"]))
    return found


def _penalty(given: Mapping[str, Any], name: str) -> float:
    return _number(name, given.get(name, 0.0), rule="-2 to 2; 0 is none", least=-2.0, most=2.0)


def _optional(given: Mapping[str, Any], name: str, check: Any) -> Any:
    return check(name, given[name]) if name in given else None
