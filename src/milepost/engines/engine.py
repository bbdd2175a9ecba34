"""A model, a prefix cache and a scheduler under one roof: prompts in, tokens out, little computed twice.

    engine = Engine.open("Qwen/Qwen3.5-0.8B", capacity="4GiB")
    answer = engine.generate("The quick brown fox", max_new_tokens=32)
    print(answer.text, answer.report.reused, "tokens reused")

Everything runs in the caller's thread. An engine has one owner: a second thread that calls while a call is at
work on the same model gets an error at once (``ownership``). The model may be changed between requests; a
state is served only to the model that made it, as it computes now (``watch``, ``audit``).
"""

import logging
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

import torch
import transformers

from milepost.byte_size import format_bytes
from milepost.counts import as_count
from milepost.engines.audit import Audit, Auditor, AuditStatistics, checked_audit
from milepost.engines.completion import Completion, TokenEvent
from milepost.engines.generation import Generation
from milepost.engines.handover import Handover, hand_over
from milepost.engines.keeping import AnyCache, CacheRequest, Keeping, Lasting, keep_in
from milepost.engines.opening import checked_policy, serve_model
from milepost.engines.prefill import Numerics
from milepost.engines.prompts import check_listed
from milepost.engines.recall import Recall
from milepost.engines.requests import (
    Continuation,
    GenerationRequest,
    Prompt,
    RequestOptions,
    RequestReader,
    checked_scoring,
    checked_tenant,
)
from milepost.engines.scheduler import Scheduler, Turn
from milepost.engines.scoring import Score, ScoredContext, Scoring
from milepost.engines.served_model import ServedModel
from milepost.engines.sharing import Sharing
from milepost.engines.streaming import events_of
from milepost.engines.text import Tokenizer
from milepost.engines.timing import seconds_to_prefill
from milepost.errors import InvalidRequestError
from milepost.footprint import Footprint
from milepost.interrupts import deferred_interrupts
from milepost.placement import PlacementPolicy
from milepost.policies import CachePolicy
from milepost.tiers import TierStatistics
from milepost.tokens import TokenArray

__all__ = ["Engine"]

_log = logging.getLogger(__name__)


class Engine:
    """See the module. Built by :meth:`open`, which probes that the model resumes exactly."""

    def __init__(
        self,
        served: ServedModel,
        *,
        cache: AnyCache,
        lasting: Lasting | None = None,
        audit: Audit,
        max_running: int,
        decode_rows: int | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self.driver = served.driver
        self.tokenizer = served.tokenizer
        self.cache = cache
        self.probe = served.probe
        self.numerics = served.numerics
        self.capture = served.capture
        self.segment_tokens = served.segment_tokens
        self.max_running = max_running
        self._served = served
        self._recall = Recall(
            keeping=Keeping(cache=cache, lasting=lasting),
            admission=served.admission,
            driver=served.driver,
            auditor=Auditor(audit, is_repeatable=self.probe.is_repeatable),
            fingerprint=served.fingerprint,
            segment_tokens=served.segment_tokens,
            cuts=served.cuts,
        )
        self._rows = served.new_rows(decode_rows, max_running=max_running)
        self._decode_rows = decode_rows
        self._template_options = chat_template_kwargs
        sharing = Sharing(self._recall, cuts=served.cuts, segment_tokens=served.segment_tokens)
        self._scheduler = Scheduler(self._rows, sharing=sharing, max_running=max_running)
        self._scoring = Scoring(served, self._recall, sharing=sharing)
        self._requests = RequestReader(
            driver=served.driver,
            tokenizer=served.tokenizer,
            settings=served.generation_settings,
            template_options=chat_template_kwargs,
        )

    @classmethod
    def open(
        cls,
        model: str | Path | torch.nn.Module,
        *,
        capacity: int | str = "1GiB",
        policy: str | CachePolicy | PlacementPolicy = "learned",
        numerics: str = "strict",
        segment_tokens: int | None = None,
        tokenizer: Tokenizer | None = None,
        dtype: str = "auto",
        device: str | None = None,
        revision: str | None = None,
        key_type: str | None = None,
        value_type: str | None = None,
        max_running: int = 8,
        decode_rows: int | None = None,
        generation_config: Mapping[str, Any] | transformers.GenerationConfig | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        audit: float | Audit | None = None,
        cache_dir: str | Path | None = None,
        disk_capacity: int | str | None = None,
        host_capacity: int | str | None = None,
    ) -> Self:
        """Open a model and prove on it, in a few hundred tokens, that resuming changes nothing.

        A family that needs a fix to resume exactly gets it on this instance of the model, and keeps it for as
        long as the model lives, since other engines may rely on it; where opening fails, it is taken off.

        Args:
            model: A folder, a hub id, a GGUF file, which llama.cpp runs, or a model in memory, which is put
                in evaluation mode. Of a wrapper (``torch.compile``, PEFT) the model inside is opened, and
                the wrapper stays as it is.
            capacity: The one budget over checkpoints and KV of all prompts, as ``"4GiB"`` or in bytes.
            policy: Where checkpoints are placed and which goes first: a name, as ``"learned"`` or
                ``"balanced:8"``, or an object.
            numerics: ``strict``: warm equals cold bit for bit; ``fast``: to rounding, with fewer cuts.
            segment_tokens: KV is stored, and strict prefill is cut, at multiples of this; a multiple of the
                model's own alignment. Unless given, 256 or the next multiple on a CPU; elsewhere the shortest
                that costs a prefill at most 3 %, measured on opening.
            tokenizer: Replaces the model's own.
            dtype: ``auto``, ``float32``, ``bfloat16`` or ``float16``; not for a model in memory or a GGUF
                file.
            device: ``cpu``, ``cuda`` ...; the fastest there is unless given; not for these either.
            revision: Of a hub id, and of nothing else.
            key_type: Of a GGUF file alone: the number format that keys are cached in, as ``q8_0``; ``f16``
                unless given. See ``docs/kv-compression.md``.
            value_type: The same of values.
            max_running: Requests that are interleaved at most; each holds a live cache.
            decode_rows: Answers that go on in one call of the model. In fast numerics as many as run, unless
                given. In strict 1 unless given; a larger number is then the number of rows of every call,
                filled up where fewer run, so that an answer hangs on its prompt and on this number alone.
            generation_config: Settings that take the place of the model's own, as
                ``{"repetition_penalty": 1.1}``; for what no request says otherwise.
            chat_template_kwargs: Options of the chat template, as ``{"enable_thinking": False}``; for what no
                request says otherwise.
            audit: Share of the hits of which a stretch is computed again and compared bit for bit with what
                is stored; 0 for none. 1/256 in strict numerics unless given, 0 in fast, where bits cannot be
                compared. An :class:`Audit` says more.
            cache_dir: A folder that keeps checkpoints for this process and the next; only for a model that is
                loaded here, as long as it computes as it was opened. See ``docs/tiers.md``.
            disk_capacity: What may lie in it; 16 GiB unless given.
            host_capacity: What the host's memory may keep beside a device's, which ``capacity`` is of; none
                unless given.

        Raises:
            ModelLoadError: the model cannot be read.
            UnsupportedModelError: it cannot be resumed exactly.
            CapacityError: the budget holds not even one checkpoint; the message names the least that does.
            ConfigurationError: another option breaks its rule.
        """
        asked = CacheRequest(
            capacity=capacity,
            policy=policy,
            cache_dir=cache_dir,
            disk_capacity=disk_capacity,
            host_capacity=host_capacity,
        )
        asked.check()
        served = serve_model(
            model,
            numerics=numerics,
            segment_tokens=segment_tokens,
            tokenizer=tokenizer,
            dtype=dtype,
            device=device,
            revision=revision,
            key_type=key_type,
            value_type=value_type,
            generation_config=generation_config,
        )
        try:
            keeping = keep_in(served, asked)
            engine = cls(
                served,
                cache=keeping.cache,
                lasting=keeping.lasting,
                audit=checked_audit(audit, served.numerics),
                max_running=max_running,
                decode_rows=decode_rows,
                chat_template_kwargs=chat_template_kwargs,
            )
        except BaseException:
            served.driver.release()
            raise
        if engine.footprint.is_stateless:
            _log.warning("%s, whatever the placement policy", engine.description)
        return engine

    def sibling(self, *, capacity: int | str, policy: str | CachePolicy | PlacementPolicy) -> Self:
        """Return an engine over the same model, which is not probed again, with a cache of its own in memory.

        Args:
            capacity: As in :meth:`open`.
            policy: As in :meth:`open`.

        Raises:
            ConfigurationError: as in :meth:`open`.
        """
        cache = self._served.new_cache(capacity=capacity, policy=checked_policy(policy))
        audit = self._recall.auditor.audit
        return type(self)(
            self._served,
            cache=cache,
            audit=audit,
            max_running=self.max_running,
            decode_rows=self._decode_rows,
            chat_template_kwargs=self._template_options,
        )

    @property
    def footprint(self) -> Footprint:
        """What a checkpoint, a token of KV and a recomputed token cost with this model."""
        return self.cache.footprint

    @property
    def description(self) -> str:
        """One line on what this model's cache holds."""
        if self.footprint.is_stateless:
            return f"{self.driver.family} has no recurrent state: only its KV is reused"
        weight = (
            f"one checkpoint of {self.driver.family} takes {format_bytes(self.footprint.checkpoint_bytes)}"
        )
        price = self.footprint.checkpoint_kv_tokens
        if price is not None:
            weight += f", as much as the KV of {price:,.0f} tokens"
        return weight if self.numerics is Numerics.STRICT else f"{weight}; it is taken {self.capture}"

    def encode(self, prompt: Prompt) -> TokenArray:
        """Return ``prompt`` as checked tokens of this model; see :meth:`RequestReader.encode`."""
        return self._requests.encode(prompt)

    def read(self, prompt: Prompt, **options: Unpack[RequestOptions]) -> GenerationRequest:
        """Return a request that is checked and encoded, for :meth:`submit`. It needs no turn of the model, so
        a server may do it in a thread beside the one that owns the engine; in one such thread at a time.

        Args:
            prompt: A text, chat messages (``[{"role": "user", "content": ...}]``), or token ids.
            options: See :class:`RequestOptions`.

        Raises:
            InvalidRequestError: the prompt or an option breaks a rule.
        """
        return self._requests.read(prompt, **options)

    def submit(self, prompt: Prompt | GenerationRequest, **options: Unpack[RequestOptions]) -> Generation:
        """Queue a request. It advances with every turn of :meth:`step`, beside the others.

        Args:
            prompt: As for :meth:`read`; or what that returned, once, and then no options.
            options: See :class:`RequestOptions`.

        Raises:
            InvalidRequestError: the prompt or an option breaks a rule; nothing was queued.
            ConcurrentUseError: another thread is at work on the model; nothing was queued.
            UnsupportedModelError: the model has no weights any more; nothing was queued.
        """
        self._served.admission.require_weights()
        if not isinstance(prompt, GenerationRequest):
            prompt = self.read(prompt, **options)
        elif options:
            raise InvalidRequestError(
                f"the request was read before, and options come too: {', '.join(options)}; give them to read"
            )
        generation = Generation(prompt, served=self._served, recall=self._recall, rows=self._rows)
        with self._served.ownership.call("Engine.submit"):
            self._scheduler.submit(generation)
        return generation

    def step(self) -> Turn:
        """Give out the next turn: a piece of one prompt, or a token of every answer that fits in one call.

        A request that fails ends its turn as any other; its ``completion`` raises what broke it.

        Returns:
            Each request that had a part in it, with what it produced; empty where nothing is left to do.

        Raises:
            ConcurrentUseError: another thread is at work on the model, or this is called inside a turn.
        """
        # The caller may have changed the model since.
        self._served.admission.distrust()
        return self._turn("Engine.step")

    def _turn(self, caller: str) -> Turn:
        with self._served.ownership.turn(caller):
            return self._scheduler.step()

    def generate(self, prompt: Prompt, **options: Unpack[RequestOptions]) -> Completion:
        """Answer one prompt. Options as in :meth:`submit`."""
        return self.generate_many([prompt], **options)[0]

    def generate_many(
        self,
        prompts: Sequence[Prompt],
        *,
        on_step: Callable[[Generation], None] | None = None,
        **options: Unpack[RequestOptions],
    ) -> list[Completion]:
        """Answer several prompts, interleaved. Options as in :meth:`submit`, the same for all.

        Every prompt is checked before the first is run. One that fails leaves the others alone: all are run
        to their ends, then the first one's error is raised.
        """
        check_listed(prompts)
        if on_step is not None and not callable(on_step):
            raise InvalidRequestError(f"on_step={on_step!r}; give a function of a generation")
        with self._served.ownership.call("Engine.generate"):
            generations: list[Generation] = []
            self._served.admission.distrust()
            try:
                for prompt in prompts:
                    generations.append(self.submit(prompt, **options))  # noqa: PERF401 (queued ones are closed)
                while not all(generation.is_done for generation in generations):
                    for generation, _ in self._turn("Engine.generate"):
                        if on_step is not None:
                            on_step(generation)
                            self._served.admission.distrust()
            except BaseException:
                with deferred_interrupts():
                    for generation in generations:
                        generation.close()
                raise
            return [generation.completion() for generation in generations]

    def stream(self, prompt: Prompt, **options: Unpack[RequestOptions]) -> Iterator[TokenEvent]:
        """Answer one prompt token by token. Options as in :meth:`submit`. Leaving the loop early gives up the
        request; what it held is released with the next turn of any request, or by :meth:`close`.
        """
        return self.run(self.submit(prompt, **options))

    def run(self, generation: Generation) -> Iterator[TokenEvent]:
        """Yield what a submitted request produces until it is done, giving every other request its turns.

        Raises:
            InvalidRequestError: it is no request that was submitted to this engine.
        """
        if not isinstance(generation, Generation):
            raise InvalidRequestError(f"generation={generation!r}; give what submit returned, or use stream")
        if not generation.is_done and not self._scheduler.holds(generation):
            raise InvalidRequestError(
                "the generation was submitted to another engine, which alone can run it; run it there"
            )
        events = events_of(generation, step=self.step)
        # A loop that never starts has nothing to clean up after itself.
        weakref.finalize(events, generation.abandon).atexit = False
        return events

    def score(
        self, context: Prompt, continuations: Sequence[Continuation], *, tenant: str | None = None
    ) -> list[Score]:
        """Return how likely each of several continuations of one context is; see :meth:`score_many`."""
        return self.score_many([(context, continuations)], tenant=tenant)[0]

    def score_many(
        self,
        requests: Sequence[tuple[Prompt, Sequence[Continuation]]],
        *,
        tenant: str | None = None,
        on_context: Callable[[ScoredContext], None] | None = None,
    ) -> list[list[Score]]:
        """Return how likely continuations of many contexts are, in the order asked.

        What contexts share is computed once, in whatever order and however often they are asked for. Every
        request is checked before the first is run. Complexity and promises: :mod:`milepost.engines.scoring`.

        Args:
            requests: Contexts (a text, chat messages, or token ids), each with a list of continuations (texts
                or token ids). Two texts are one text: where the continuation begins in its tokens, harnesses
                and this agree. A text after messages or ids is encoded alone.
            tenant: Whose contexts they are; tenants share nothing.
            on_context: Told of each context that is scored, in the order of the work.

        Raises:
            InvalidRequestError: a request breaks a rule; nothing was run.
            ModelChangedError: the model was changed while it was at work.
            ConcurrentUseError: another thread is at work on the model, or this is called inside a turn.
            UnsupportedModelError: the model has no weights any more.
        """
        if on_context is not None and not callable(on_context):
            raise InvalidRequestError(f"on_context={on_context!r}; give a function of a scored context")
        self._served.admission.require_weights()
        name = checked_tenant("" if tenant is None else tenant)
        asked = [self._requests.read_continuations(*each) for each in checked_scoring(requests)]
        with self._served.ownership.call("Engine.score"):
            return self._scoring.run(asked, tenant=name, on_context=on_context)

    def resume(
        self, prompt: Prompt, *, breakpoints: Sequence[int] | None = None, tenant: str | None = None
    ) -> Handover:
        """Return what ``generate`` of transformers goes on from, for tools that have their own loop:

            handover = engine.resume(prompt)
            handover.model.generate(**handover.arguments, max_new_tokens=64)

        The prompt is computed up to its last piece, and stored like any other; see
        :mod:`milepost.engines.handover`.

        Args:
            prompt: A text, chat messages, or token ids.
            breakpoints: As in :meth:`submit`.
            tenant: As in :meth:`submit`.

        Raises:
            UnsupportedModelError: there is no such loop for this engine or family; the message says why.
            InvalidRequestError: the prompt or an option breaks a rule; nothing was run.
            ConcurrentUseError: another thread is at work on the model, or this is called inside a turn.
        """
        self._served.admission.require_weights()
        request = self._requests.read(prompt, breakpoints=breakpoints, tenant=tenant)
        with self._served.ownership.call("Engine.resume"):
            self._served.admission.distrust()
            return hand_over(request, served=self._served, recall=self._recall)

    def measure_prefill(self, num_tokens: int, *, segment_tokens: int | None = None) -> float:
        """Return the seconds that a cold prefill of ``num_tokens`` tokens takes here, past the cache.

        Args:
            num_tokens: Length of the prompt.
            segment_tokens: Where it is cut; as this engine does unless given.

        Raises:
            InvalidRequestError: one of them is no whole number of at least 1, or more than the model's
                context.
        """
        limit = self.driver.context_length
        num_tokens = as_count("num_tokens", num_tokens, least=1, most=limit, error=InvalidRequestError)
        if segment_tokens is None:
            segment_tokens = self.segment_tokens
        segment_tokens = as_count("segment_tokens", segment_tokens, least=1, error=InvalidRequestError)
        with self._served.ownership.turn("Engine.measure_prefill"):
            return seconds_to_prefill(self.driver, num_tokens, segment_tokens=segment_tokens)

    def invalidate(self) -> None:
        """Drop all states: the model was changed where nothing shows, as by writing through ``.data``.

        What shows needs no call; ``docs/training-and-serving.md`` says what does.
        """
        with self._served.ownership.turn("Engine.invalidate"):
            self._recall.invalidate()

    @property
    def audits(self) -> AuditStatistics:
        """How many hits were computed again, and what came of it."""
        return self._recall.auditor.statistics

    def tiers(self) -> tuple[TierStatistics, ...]:
        """Return what each tier of the cache holds and was good for, from the fastest on."""
        return self._recall.keeping.tiers()

    def close(self) -> None:
        """Give up every request that is not done, and let go of the folder: what waits is written.

        Raises:
            ConcurrentUseError: another thread is at work on the model, or this is called inside a turn.
        """
        with self._served.ownership.turn("Engine.close"):
            self._scheduler.close()
            self._recall.keeping.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
