"""How a model's own ``generation_config`` and a request's options become processors, end tokens and lengths.

The settings are merged, and the logits processors built and ordered, by transformers' own code, as its
``generate`` does: what is likely, forbidden or forced here is so there. What ``generate`` would do in a way
that this engine has not (beams, drafts, several answers, caches of another kind) is refused by name, and so
is what asks for outputs that a completion does not have. Settings that only say how fast to get there are
not looked at (``use_cache``, ``compile_config``, ``prefill_chunk_size`` ...).

``generation_config`` overrides ``config`` wholly, as in transformers: end tokens that only ``config`` names
end nothing.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList, PreTrainedModel
from transformers.generation.configuration_utils import GenerationMode

from milepost.engines.penalties import AnswerPenalties
from milepost.errors import ConfigurationError, InvalidRequestError
from milepost.tokens import TokenArray

__all__ = ["AnswerSettings", "GenerationSettings"]

# Where neither the request nor the model says how long an answer may get; transformers has 20.
_DEFAULT_NEW_TOKENS = 128
# Caches that hold what ours holds; transformers itself takes "hybrid" for "dynamic".
_CACHES = (None, "dynamic", "hybrid")
_WHY_NOT = {
    "cache_implementation": "this engine keeps caches as the model computes them, and transformers' "
    "quantised ones compress a prompt's tokens by what comes after them or by how much of it came first"
}
# What ``generate`` would do in another way than token after token, or would return beside the tokens.
_REFUSED = (
    "use_mtp",
    "prompt_lookup_num_tokens",
    "assistant_early_exit",
    "is_assistant",
    "dola_layers",
    "constraints",
    "force_words_ids",
    "token_healing",
    "max_time",
    "custom_generate",
    "return_dict_in_generate",
    "output_scores",
    "output_logits",
    "output_attentions",
    "output_hidden_states",
)
# Options that only draws heed, and the values at which those do not either.
_FOR_DRAWS = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
_REFUSED_ABOVE_ONE = ("num_beams", "num_beam_groups", "num_return_sequences")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSettings:
    """What holds for one answer.

    Attributes:
        processors: Change the logits, in transformers' order; made for this request alone.
        draws: Draw from the probabilities; else take the likeliest token.
        max_new_tokens: Tokens of the answer at most.
        is_cut_by_context: Whether that is less than was asked for, since the model's context ends.
        end_tokens: Tokens that end the answer.
        stop: Texts that end the answer.
    """

    processors: LogitsProcessorList
    draws: bool
    max_new_tokens: int
    is_cut_by_context: bool
    end_tokens: frozenset[int]
    stop: tuple[str, ...]


class GenerationSettings:
    """Reads the settings of one model, anew for every request: they may be changed at any time.

    Args:
        model: Whose ``generation_config`` holds.
        overrides: Settings that take the place of its own.

    Raises:
        ConfigurationError: there is no such setting, or one cannot be honoured.
    """

    def __init__(
        self,
        model: PreTrainedModel | GenerationMixin,
        *,
        overrides: Mapping[str, Any] | GenerationConfig | None = None,
    ) -> None:
        self._model: Any = model
        self._overrides = _checked_overrides(overrides)
        try:
            self._merged({})
        except InvalidRequestError as error:
            raise ConfigurationError(str(error)) from error

    def for_request(
        self,
        prompt: TokenArray,
        options: Mapping[str, Any],
        *,
        context_length: int | None,
        ignore_end_token: bool = False,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
    ) -> AnswerSettings:
        """Return what holds for an answer to ``prompt``.

        Args:
            prompt: Its tokens.
            options: Settings that the request names, by their names in ``generation_config``.
            context_length: Of the model; None for no limit.
            ignore_end_token: No token ends the answer.
            presence_penalty: Taken off the logits of tokens in the answer, once each.
            frequency_penalty: Taken off the logits of tokens in the answer, as often as they are in it.

        Raises:
            InvalidRequestError: a setting cannot be honoured, or leaves no room for an answer.
        """
        config = self._merged(self._without_what_greedy_ignores(options))
        if ignore_end_token:
            config.eos_token_id = None
        max_new_tokens = self._max_new_tokens(config, prompt.size)
        room = max_new_tokens if context_length is None else min(max_new_tokens, context_length - prompt.size)
        # What processors of transformers count with, as its own ``generate`` sets it.
        config.max_length = prompt.size + room
        if config.min_new_tokens is not None:
            config.min_length = prompt.size + config.min_new_tokens
        own = LogitsProcessorList()
        if presence_penalty or frequency_penalty:
            own.append(
                AnswerPenalties(
                    presence=presence_penalty, frequency=frequency_penalty, num_prompt_tokens=prompt.size
                )
            )
        return AnswerSettings(
            processors=self._processors(config, prompt, own),
            draws=bool(config.do_sample),
            max_new_tokens=room,
            is_cut_by_context=room < max_new_tokens,
            end_tokens=_as_tokens(config.eos_token_id),
            stop=_as_texts(config.stop_strings),
        )

    def _merged(self, options: Mapping[str, Any]) -> GenerationConfig:
        model = self._model
        try:
            config: GenerationConfig = model._prepare_generation_config(None, **self._overrides, **options)[0]
        except (TypeError, ValueError, AttributeError) as error:
            raise _refused(error) from error
        _refuse_what_cannot_be_honoured(config)
        return config

    def _without_what_greedy_ignores(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the options without those that only draws heed, where nothing is drawn."""
        own = self._overrides.get("do_sample", self._model.generation_config.do_sample)
        if options.get("do_sample", own):
            return options
        for name, neutral in _FOR_DRAWS.items():
            # A request that says temperature=0 as well is greedy whatever the others are.
            if "do_sample" not in options and options.get(name, neutral) != neutral:
                raise InvalidRequestError(
                    f"{name}={options[name]} says what to draw from, and this model's generation_config "
                    "draws nothing (do_sample); give a temperature above 0, as temperature=1.0"
                )
        return {name: value for name, value in options.items() if name not in _FOR_DRAWS}

    def _max_new_tokens(self, config: GenerationConfig, num_prompt_tokens: int) -> int:
        if config.max_new_tokens is not None:
            return int(config.max_new_tokens)
        # Merging fills in transformers' default, which nobody asked for.
        default = GenerationConfig().max_length
        max_length = self._overrides.get("max_length", self._model.generation_config.max_length)
        if max_length == default or max_length is None:
            return _DEFAULT_NEW_TOKENS
        if max_length <= num_prompt_tokens:
            raise InvalidRequestError(
                f"the prompt has {num_prompt_tokens:,} tokens and max_length={max_length:,} in "
                "generation_config leaves none for the answer; give max_new_tokens"
            )
        return int(max_length) - num_prompt_tokens

    def _processors(
        self, config: GenerationConfig, prompt: TokenArray, own: LogitsProcessorList
    ) -> LogitsProcessorList:
        model, device = self._model, self._model.device
        if config.exponential_decay_length_penalty is not None and config.eos_token_id is None:
            raise InvalidRequestError(
                "exponential_decay_length_penalty makes end tokens likelier, and no token ends this answer; "
                "leave out ignore_end_token, or set exponential_decay_length_penalty=None"
            )
        try:
            model._prepare_special_tokens(config, kwargs_has_attention_mask=True, device=device, batch_size=1)
            processors: LogitsProcessorList = model._get_logits_processor(
                generation_config=config,
                input_ids_seq_length=prompt.size,
                encoder_input_ids=torch.from_numpy(prompt.astype("int64"))[None].to(device),
                logits_processor=own,
                device=device,
                model_kwargs={},
            )
        except (TypeError, ValueError, IndexError) as error:
            raise _refused(error) from error
        return processors


def _checked_overrides(overrides: Mapping[str, Any] | GenerationConfig | None) -> dict[str, Any]:
    if isinstance(overrides, GenerationConfig):
        overrides = {name: value for name, value in overrides.to_diff_dict().items() if value is not None}
        overrides.pop("transformers_version", None)
    if overrides is not None and not isinstance(overrides, Mapping):
        raise ConfigurationError(
            f"generation_config={overrides!r}; give settings by name, as {{'repetition_penalty': 1.1}}, or a "
            "GenerationConfig"
        )
    given = dict(overrides or {})
    known = {*vars(GenerationConfig()), *_REFUSED}
    for name in given:
        if name.startswith("_") or name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "see transformers' GenerationConfig"
            raise ConfigurationError(f"generation_config has no setting {name!r}; {hint}")
    return given


def _refuse_what_cannot_be_honoured(config: GenerationConfig) -> None:
    asked = {name: getattr(config, name, None) for name in (*_REFUSED, *_REFUSED_ABOVE_ONE)}
    refused = [name for name in _REFUSED if asked[name] not in (None, False)]
    refused += [name for name in _REFUSED_ABOVE_ONE if asked[name] not in (None, 1)]
    if config.cache_implementation not in _CACHES:
        refused.append("cache_implementation")
    if not refused and config.get_generation_mode() not in (
        GenerationMode.GREEDY_SEARCH,
        GenerationMode.SAMPLE,
    ):
        refused.append("penalty_alpha")  # contrastive search: the one mode that is left
    if refused:
        name = refused[0]
        neutral = 1 if name in _REFUSED_ABOVE_ONE else None
        raise InvalidRequestError(
            f"generation_config asks for {name}={getattr(config, name)!r}, which cannot be honoured: "
            f"{_WHY_NOT.get(name, 'this engine gives one answer, token after token')}; override it: "
            f"Engine.open(..., generation_config={{{name!r}: {neutral}}})"
        )


def _refused(error: Exception) -> InvalidRequestError:
    return InvalidRequestError(
        f"transformers refuses this generation_config: {error}; change it (model.generation_config, or "
        "Engine.open(..., generation_config={...}))"
    )


def _as_tokens(ids: Any) -> frozenset[int]:
    if ids is None:
        return frozenset()
    return frozenset(int(token) for token in (ids if isinstance(ids, list | tuple) else (ids,)))


def _as_texts(stop: Any) -> tuple[str, ...]:
    return () if stop is None else (stop,) if isinstance(stop, str) else tuple(stop)
