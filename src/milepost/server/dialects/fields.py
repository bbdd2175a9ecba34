"""What requests of several APIs have in common: sampling, whose cache, and what is refused.

A body is read strictly. A field that nobody knows is an error, and so is one that would change the answer and
cannot be honoured; it stands in the schema with the one value that changes nothing. What never changes an
answer (who the end user is, which tier of a service) is accepted as it is.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "Body",
    "CacheFields",
    "DrawFields",
    "Effort",
    "Neutral",
    "RoutedFields",
    "SaltFields",
    "SamplingFields",
    "StreamOptions",
    "TalkFields",
    "TextFormat",
    "WithoutEffect",
    "sampling_options",
    "thinks_at",
]

_MOST_SALT = 256
_MOST_STOPS = 16
_SEED_BOUND = 2**63

# A field of which only nothing is honoured: the description says why, and the error repeats it.
Neutral = Annotated[None, Field(default=None)]
WithoutEffect = Annotated[Any, Field(default=None, description="Accepted; it changes nothing here.")]


# How much a model reasons; told to its template, where that knows it.
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


def thinks_at(effort: Effort | None) -> bool | None:
    """Return whether a model reasons at that effort; None leaves it to its template."""
    return None if effort is None else effort != "none"


class Body(BaseModel):
    """A request's body."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class StreamOptions(Body):
    """OpenAI's ``stream_options``."""

    include_usage: bool = Field(default=False, description="A last chunk tells the usage.")
    include_obfuscation: bool | None = Field(default=None, description="Accepted; nothing is padded here.")


class TextFormat(Body):
    """The one form of answers."""

    type: Literal["text"]


class SaltFields(Body):
    """Whose part of the cache is used."""

    cache_salt: Annotated[str, Field(min_length=1, max_length=_MOST_SALT)] | None = Field(
        default=None,
        description="Requests of different salts share no state, no KV and no time of a hit.",
    )


class CacheFields(SaltFields):
    """Whose part of the cache is used, and what is told of it."""

    include_recomputed: bool | None = Field(
        default=None,
        description="Tell in usage.prompt_tokens_details.recomputed why prompt tokens were computed again.",
    )
    prompt_cache_key: str | None = Field(default=None, description="Accepted: one machine has one cache.")


class TalkFields(Body):
    """What OpenAI's two APIs of conversations have in common."""

    tool_choice: Literal["auto", "none"] | None = Field(
        default=None, description="No call can be forced here; 'none' leaves the tools out of the prompt."
    )
    parallel_tool_calls: bool | None = Field(
        default=None, description="Where it is false, the first of several calls is given."
    )
    chat_template_kwargs: dict[str, Any] | None = Field(
        default=None, description="For the model's template, as {'enable_thinking': false}."
    )


class DrawFields(Body):
    """How tokens are drawn; what is not given is as the model says."""

    temperature: Annotated[float, Field(ge=0, le=100)] | None = Field(
        default=None, description="0 takes the likeliest token."
    )
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = Field(default=None, description="0 and -1 are all tokens.")


class SamplingFields(DrawFields):
    """How tokens are chosen; what is not given is as the model says."""

    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    seed: Annotated[int, Field(ge=-_SEED_BOUND, lt=_SEED_BOUND)] | None = Field(
        default=None, description="Equal seeds draw equal tokens; 0 unless given."
    )
    stop: str | Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=_MOST_STOPS)] | None = (
        Field(default=None, description="What ends the answer and is no part of it.")
    )
    ignore_eos: bool = Field(default=False, description="Go on past the model's end token.")
    logit_bias: dict[str, Literal[0]] | None = Field(
        default=None, description="No bias is added to tokens here; leave it out."
    )


class RoutedFields(Body):
    """Switches of vLLM's and SGLang's APIs. Their routers write each into every request, with the value
    that changes nothing.
    """

    skip_special_tokens: Literal[True] | None = Field(
        default=None, description="Special tokens are no part of an answer's text here; leave it out."
    )
    no_stop_trim: Literal[False] | None = Field(
        default=None, description="What stops an answer is no part of it here; leave it out."
    )
    return_hidden_states: Literal[False] | None = Field(
        default=None, description="No hidden states are given here; leave it out."
    )


_ENGINE_NAMES = {"ignore_eos": "ignore_end_token"}


def sampling_options(body: SamplingFields) -> dict[str, Any]:
    """Return the engine's options for what the body says of sampling."""
    names = SamplingFields.model_fields.keys() - Body.model_fields.keys() - {"logit_bias"}
    given = {name: getattr(body, name) for name in names}
    if given["stop"] == "":
        # As OpenAI's: an empty text stops nothing.
        given["stop"] = None
    return {_ENGINE_NAMES.get(name, name): value for name, value in given.items() if value not in (None, [])}
