"""Answers that an evaluation asks for: the harness's options to those of a request, tokens to its texts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Self

from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text

from milepost.engines.completion import Completion
from milepost.errors import InvalidRequestError

if TYPE_CHECKING:
    from milepost.lm_eval.model import MilepostLM

__all__ = ["AnswerRequest", "answer_all"]

_DEFAULT_NEW_TOKENS = 256
# What the harness passes on to an engine, and is the same there.
_SAMPLING = ("top_p", "top_k", "min_p", "repetition_penalty", "seed")
_SUBMITTED_TOGETHER = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRequest:
    """One context to be answered.

    Attributes:
        tokens: The context, as much of its end as leaves room for the answer.
        stop: What ends the answer, and is no part of it.
        options: Of the request.
    """

    tokens: tuple[int, ...]
    stop: tuple[str, ...]
    options: tuple[tuple[str, Any], ...]

    @classmethod
    def read(cls, arguments: tuple[str, Mapping[str, Any]], *, model: "MilepostLM") -> Self:
        """Return what the harness asks for.

        Raises:
            InvalidRequestError: an option is none, or leaves no room for the context.
        """
        context, given = arguments
        options = dict(normalize_gen_kwargs(dict(given), _DEFAULT_NEW_TOKENS))
        eos = model.tokenizer.decode([model.eot_token_id])
        stop = handle_stop_sequences(options.pop("until", None), eos=eos)
        num_new = options.pop("max_gen_toks")
        num_context = model.max_length - num_new
        if num_context < 1:
            raise InvalidRequestError(
                f"max_gen_toks={num_new} and the model has {model.max_length:,} tokens for context and "
                "answer; ask for fewer"
            )
        return cls(
            tokens=tuple(model.tok_encode(context, left_truncate_len=num_context)),
            stop=tuple(each for each in stop if each),
            options=(("max_new_tokens", num_new), *_sampling(options).items()),
        )


def _sampling(given: dict[str, Any]) -> dict[str, Any]:
    """Return the options that say how tokens are drawn, under their names here."""
    draws, temperature = given.pop("do_sample"), given.pop("temperature", None)
    if draws and not temperature:
        raise InvalidRequestError("do_sample=True without a temperature above 0; give one, or leave both out")
    found = {name: given.pop(name) for name in _SAMPLING if name in given}
    if given:
        raise InvalidRequestError(
            f"generation options {', '.join(map(repr, given))} are not known here; known are until, "
            f"max_gen_toks, do_sample, temperature, {', '.join(_SAMPLING)}"
        )
    return {"temperature": temperature if draws else 0.0, **found}


def answer_all(requests: Sequence[AnswerRequest], *, model: "MilepostLM") -> Iterator[tuple[int, str]]:
    """Yield the number of each request and its answer, those that begin alike next to each other."""

    def terms(index: int) -> tuple[str, ...]:
        return requests[index].stop, repr(requests[index].options)  # type: ignore[return-value]

    ordered = sorted(range(len(requests)), key=lambda index: (terms(index), requests[index].tokens))
    for _, alike in groupby(ordered, key=terms):
        numbers = list(alike)
        for begin in range(0, len(numbers), _SUBMITTED_TOGETHER):
            together = numbers[begin : begin + _SUBMITTED_TOGETHER]
            first = requests[together[0]]
            completions = model.engine.generate_many(
                [requests[index].tokens for index in together], stop=first.stop, **dict(first.options)
            )
            for index, completion in zip(together, completions, strict=True):
                model.savings.add(
                    completion.report,
                    num_requests=1,
                    separate_tokens=completion.report.num_tokens,
                    continuation_tokens=0,
                )
                yield index, _text(completion, first, model=model)


def _text(completion: Completion, request: AnswerRequest, *, model: "MilepostLM") -> str:
    """Return the answer as the harness cuts it, thoughts and what comes from the first stop string on."""
    tokens, ends = list(completion.tokens), model.think_end_token
    if isinstance(ends, int) and ends in tokens:
        tokens = tokens[len(tokens) - tokens[::-1].index(ends) :]
    text: str = _decoded(model.tokenizer, tokens)
    cut: str = postprocess_generated_text(
        generation=text.lstrip() if isinstance(ends, int) else text,
        stop=list(request.stop),
        think_end_token=ends if isinstance(ends, str) else None,
    )
    return cut


def _decoded(tokenizer: Any, tokens: list[int]) -> str:
    """Return the text of an answer without its special tokens, where the tokenizer tells them apart."""
    kept = set(getattr(tokenizer, "all_special_ids", ()))
    text: str = tokenizer.decode([token for token in tokens if token not in kept])
    return text
