"""The harness's model: its texts and rules, on an engine that computes what requests share once.

What is asked for, and how texts become tokens, is the harness's to say, to the letter of its ``hf`` model: a
context's trailing spaces belong to the continuation, an empty context is the prefix token, what is too long
loses its beginning. So scores agree with ``hf`` (``softmax_dtype="float32"``), request by request, to
rounding; in strict numerics they are the same bits in any order and company besides.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import torch
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import DEFAULT_MAX_LENGTH, has_bos_prefix, resolve_max_length
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from milepost.counts import as_count
from milepost.engines.engine import Engine
from milepost.engines.scoring import ScoredContext
from milepost.errors import ConfigurationError, InvalidRequestError
from milepost.lm_eval.answers import AnswerRequest, answer_all
from milepost.lm_eval.opening import open_engine, special_token
from milepost.lm_eval.savings import Savings

__all__ = ["MilepostLM"]

_log = logging.getLogger(__name__)

# A request of the harness: its key in the harness's own cache of results, and the tokens of its two parts.
TokenRequest = tuple[Any, list[int], list[int]]


class MilepostLM(TemplateLM):
    """See the module. Options come as ``--model_args name=value,...``; none is taken that does nothing.

    Args:
        pretrained: A folder, a hub id, a GGUF file; in a program also a model in memory, or an open engine,
            to which none of the options down to ``trust_remote_code`` applies.
        capacity: Memory for states and KV, as ``4GiB``.
        policy: Where states are placed and which goes first.
        numerics: ``strict`` or ``fast``.
        segment_tokens: States sit at multiples of this in strict numerics; fewer for short prompts.
        tokenizer: Another one than the model's own: a folder, a hub id, or an open one.
        dtype: Of the weights.
        device: Where the model runs.
        revision: Of a hub id.
        batch_size: Answers that are generated side by side; ``auto`` for 8. Scores need none.
        max_batch_size: Most of them, where ``batch_size`` is ``auto``.
        trust_remote_code: No code from a model's repository is run; true is an error.
        max_length: Most tokens of a context with its continuation; what the model's configuration says
            unless given.
        add_bos_token: Whether texts begin with the tokenizer's special tokens; as it does unless given.
        prefix_token_id: What comes before a text without a context; BOS, else EOS, unless given.
        chat_template_args: For the chat template.
        enable_thinking: For the chat template.
        think_end_token: Answers begin after the last of these, a text or an id.

    Raises:
        ConfigurationError: an option breaks its rule, or the model has no tokenizer of Hugging Face's kind.
    """

    def __init__(
        self,
        pretrained: str | Path | torch.nn.Module | Engine,
        *,
        capacity: int | str = "1GiB",
        policy: str = "learned",
        numerics: str = "strict",
        segment_tokens: int | None = None,
        tokenizer: Any = None,
        dtype: str = "auto",
        device: str | None = None,
        revision: str | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        trust_remote_code: bool = False,
        max_length: int | None = None,
        add_bos_token: bool | None = None,
        prefix_token_id: int | None = None,
        chat_template_args: Mapping[str, Any] | None = None,
        enable_thinking: bool | None = None,
        think_end_token: str | int | None = None,
    ) -> None:
        super().__init__()
        if trust_remote_code:
            raise ConfigurationError("trust_remote_code=True; no code from a model's repository is run here")
        self.engine = open_engine(
            pretrained,
            capacity=capacity,
            policy=policy,
            numerics=numerics,
            segment_tokens=segment_tokens,
            tokenizer=tokenizer,
            dtype=dtype,
            device=device,
            revision=revision,
            batch_size=batch_size,
            max_batch_size=max_batch_size,
        )
        self.tokenizer: Any = self.engine.tokenizer
        self.savings = Savings()
        self._device = self.engine.driver.device
        self._eot = special_token(self.tokenizer, "eos")
        prefix = special_token(self.tokenizer, "bos") if prefix_token_id is None else prefix_token_id
        self._prefix = self._eot if prefix is None else prefix
        self._add_bos = add_bos_token
        self._template_options = dict(chat_template_args or {})
        if enable_thinking is not None:
            self._template_options["enable_thinking"] = enable_thinking
        if enable_thinking and think_end_token is None:
            raise ConfigurationError(
                "enable_thinking=True without think_end_token; give the text or the id that ends thoughts"
            )
        self._thinks = bool(enable_thinking)
        is_id = isinstance(think_end_token, str) and think_end_token.isdigit()
        self._think_end = int(think_end_token) if is_id and think_end_token else think_end_token
        self.max_length = self._longest(max_length)

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        if self._eot is None:
            raise InvalidRequestError("the tokenizer has no EOS token, which the harness ends answers with")
        return self._eot

    @property
    def prefix_token_id(self) -> int:
        """What comes before a text without a context."""
        if self._prefix is None:
            raise InvalidRequestError(
                "a text has no context, and the tokenizer has neither BOS nor EOS to stand for one; give "
                "prefix_token_id"
            )
        return self._prefix

    @property
    def tokenizer_name(self) -> str:
        """Names the harness's cache of rendered requests."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def get_model_info(self) -> dict[str, Any]:
        """Return what the harness writes beside its results: how it was computed, and what was saved."""
        engine = self.engine
        return {
            "milepost_numerics": str(engine.numerics),
            "milepost_segment_tokens": engine.segment_tokens,
            "milepost_savings": self.savings.as_dict(),
        }

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        left_truncate_len: int | None = None,
        **_: Any,
    ) -> list[int]:
        """Return the tokens of a text, which gets special tokens unless it begins with them."""
        adds = self._add_bos if add_special_tokens is None else add_special_tokens
        prefix = self._prefix
        if add_special_tokens is None and prefix is not None:
            adds = False if has_bos_prefix(string, self.tokenizer.decode([prefix])) else adds
        options = {} if adds is None else {"add_special_tokens": adds}
        tokens: list[int] = self.tokenizer.encode(string, **options)
        return tokens[-left_truncate_len:] if left_truncate_len else tokens

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return the text of a chat. A system message that the template refuses is left out, and said so."""

        def rendered(messages: list[dict[str, str]]) -> str:
            text: str = self.tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
                **self._template_options,
            )
            return text

        try:
            return rendered(chat_history)
        except jinja2.TemplateError as error:
            kept = [message for message in chat_history if message["role"] != "system"]
            if len(kept) == len(chat_history):
                raise
            _log.warning("the chat template refuses a system message (%s); it is left out", error)
            return rendered(kept)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Return log-probability and greediness of each continuation after its context."""
        if self._thinks:
            raise ConfigurationError(
                "enable_thinking=True and a task that scores continuations; nothing is thought before those: "
                "leave it out, or run generative tasks alone"
            )
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        return found

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Return the log-probability of each text, in windows of the model's length."""
        windows: list[TokenRequest] = []
        ends = []
        for (text,) in (request.args for request in requests):
            rolling = get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            windows += [(None, *make_disjoint_window(window)) for window in rolling]
            ends.append(len(windows))
        scores = self._loglikelihood_tokens(windows, disable_tqdm=disable_tqdm)
        found = []
        for request, begin, end in zip(requests, [0, *ends], ends, strict=False):
            found.append(sum(logprob for logprob, _ in scores[begin:end]))
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, found[-1])
        return found

    def _loglikelihood_tokens(
        self, requests: Sequence[TokenRequest], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """Score all requests at once, whatever their order: what they share is theirs to share."""
        asked = [self._fitted(context, continuation) for _, context, continuation in requests]
        num_cut = sum(
            len(context) < len(request[1]) for (context, _), request in zip(asked, requests, strict=True)
        )
        if num_cut:
            _log.warning(
                "%d of %d requests are longer than max_length=%d; their contexts lose their beginnings, and "
                "what differs at its beginning shares nothing",
                num_cut,
                len(requests),
                self.max_length,
            )
        answers: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        with tqdm(total=len(requests), disable=disable_tqdm, desc="Running loglikelihood requests") as bar:

            def note(context: ScoredContext) -> None:
                for index, _, score in context.scores:
                    answers[index] = score.logprob, score.is_greedy
                    if requests[index][0] is not None:
                        self.cache_hook.add_partial("loglikelihood", requests[index][0], answers[index])
                self.savings.add(
                    context.report,
                    num_requests=len(context.scores),
                    separate_tokens=context.separate_tokens,
                    continuation_tokens=context.continuation_tokens,
                )
                bar.update(len(context.scores))

            self.engine.score_many(
                [(context, [continuation]) for context, continuation in asked], on_context=note
            )
        return answers

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Return the answer to each context, cut before its first stop string."""
        answers = [""] * len(requests)
        asked = [AnswerRequest.read(request.args, model=self) for request in requests]
        with tqdm(total=len(requests), disable=disable_tqdm, desc="Running generate_until requests") as bar:
            for index, answer in answer_all(asked, model=self):
                answers[index] = answer
                self.cache_hook.add_partial("generate_until", requests[index].args, answer)
                bar.update()
        return answers

    @property
    def think_end_token(self) -> str | int | None:
        """Answers begin after the last of these."""
        return self._think_end

    def _fitted(self, context: list[int], continuation: list[int]) -> tuple[list[int], list[int]]:
        """Return a request without the beginning that the model has no room for."""
        if not context:
            raise InvalidRequestError(
                "a context of spaces has no tokens of its own; the harness's hf model refuses it too: give a "
                "context, or none at all"
            )
        if not 0 < len(continuation) <= self.max_length:
            raise InvalidRequestError(
                f"a continuation has {len(continuation):,} tokens; give 1 to {self.max_length:,} (max_length)"
            )
        whole = (context + continuation)[-(self.max_length + 1) :]
        return whole[: -len(continuation)], continuation

    def _longest(self, given: int | None) -> int:
        """Return the most tokens of a request, as the harness has it; never more than the model takes."""
        limit = self.engine.driver.context_length
        if given is not None:
            return as_count("max_length", given, least=1, most=limit)
        config = getattr(getattr(self.engine.driver, "model", None), "config", None)
        found = resolve_max_length(config, self.tokenizer, default=limit or DEFAULT_MAX_LENGTH)
        return found if limit is None else min(found, limit)
