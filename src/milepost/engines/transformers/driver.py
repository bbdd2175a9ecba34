"""How one model is advanced: an empty cache, then segments of tokens, each ending in the last token's logits.

A driver hides what a family needs beside the tokens (how it is called, ``model_call``). It keeps nothing
between calls: all that a request has computed so far lives in its :class:`LiveCache`, so requests can be
interleaved freely over one model.

Positions are always passed, never left to the model: some families count from zero whatever their cache
holds (bamba). Where their meaning hangs on the length of the sequence, ``positions`` says how. What else a
family needs to continue exactly is an :class:`Adaptation`; ``families`` holds the table of them. A driver
knows nothing of prompts, of where to cut, or of what is worth keeping.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from transformers import PreTrainedModel

from milepost.disk import Packed
from milepost.engines.base import Driver
from milepost.engines.host_memory import HostMemory
from milepost.engines.transformers import packing, positions
from milepost.engines.transformers.adaptation import Adaptation
from milepost.engines.transformers.frames import has_same_bits
from milepost.engines.transformers.host_memory import pinned_host_memory
from milepost.engines.transformers.inside.mixers import recurrences_in_pieces
from milepost.engines.transformers.inside.recording import recording_of
from milepost.engines.transformers.model_call import ModelCall
from milepost.engines.transformers.sequence_layers import with_room
from milepost.engines.transformers.snapshot import (
    KVSegment,
    StateSnapshot,
    build_cache,
    capture_state,
    copy_cache,
    slice_kv,
)
from milepost.errors import InvalidRequestError

__all__ = ["LiveCache", "TransformersDriver"]

_log = logging.getLogger(__name__)

# Configuration entries that name how many tokens a recurrent kernel takes at a time: Mamba-2 and xLSTM;
# Bamba, Falcon-H1 and Granite; MiniMax.
_CHUNK_SIZES = ("chunk_size", "mamba_chunk_size", "block_size")
# Gated delta rule and KDA kernels take this many, without saying so in a configuration.
_KERNEL_CHUNK = 64


@dataclass(slots=True)
class LiveCache:
    """What one request has computed: the model's own cache object after ``position`` tokens.

    ``frequency_length`` is what the prompt is rotated by (see ``positions``): 0 for nearly all models.
    """

    cache: Any
    position: int = 0
    frequency_length: int = 0


class TransformersDriver(Driver):
    """Runs one model instance. ``families.driver_for`` makes the right one; this alone is the generic case.

    Attributes:
        model: The instance.
        grows_in_place: Whether keys and values lie in buffers with room (``sequence_layers``) where the model
            is not compiled; a probe that finds other bits takes it back.

    Raises:
        UnsupportedModelError: The model is no causal language model, or its forward call takes no cache.
        ConfigurationError: The model is in training mode.
    """

    def __init__(self, model: PreTrainedModel, *, adaptation: Adaptation | None = None) -> None:
        self.model = model
        self.family: str = model.config.model_type
        self._adaptation = adaptation or Adaptation()
        self._config = model.config.get_text_config(decoder=True)
        self._call = ModelCall(model)
        self._length_rules = positions.length_rules(self._config)
        self._context_length, self._declared_length = positions.context_lengths(self._config)
        self.grows_in_place = True
        wanted = [*self._adaptation.patches(model), *positions.patches(model)]
        self._patches = [patch for patch in wanted if patch.apply()]

    @cached_property
    def alignment(self) -> int:
        """Tokens between positions where a cut changes no rounding: lcm(64, the model's chunk size)."""
        sizes = [int(size) for name in _CHUNK_SIZES if (size := getattr(self._config, name, None))]
        return math.lcm(_KERNEL_CHUNK, *sizes)

    @property
    def context_length(self) -> int | None:
        """Most tokens of a sequence, or None where the model computes at any length."""
        return self._context_length if self._adaptation.has_context_limit else None

    @property
    def takes_positions(self) -> bool:
        """Whether the forward call is told where its tokens stand."""
        return self._call.takes_positions

    @property
    def reason_against_rows(self) -> str | None:
        """Why sequences of different lengths cannot be advanced in one call, where that is known."""
        return self._adaptation.reason_against_rows

    @property
    def rotates_by_length(self) -> bool:
        """Whether positions mean something else in a longer sequence (see ``positions``)."""
        return bool(self._length_rules)

    @property
    def longest_window(self) -> int | None:
        """Tokens that a layer with a sliding window looks back, None where the configuration names none."""
        return getattr(self._config, "sliding_window", None)

    @property
    def device(self) -> torch.device:
        """Where the model's tensors lie."""
        return self.model.device

    @property
    def media_tokens(self) -> dict[int, str]:
        """Ids that stand for something which is no text, and what for: the engine has none of it to give."""
        config = self.model.config
        found = {
            getattr(config, f"{kind}_token_{suffix}", None): kind
            for kind in ("image", "video", "audio")
            for suffix in ("id", "index")
        }
        return {token: kind for token, kind in found.items() if isinstance(token, int) and token >= 0}

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids the model knows; valid ids are below it."""
        return int(self._config.vocab_size)

    def new_cache(self) -> Any:
        """Return an empty cache for one request."""
        return self._adaptation.new_cache(self.model)

    @property
    def has_room(self) -> bool:
        """Whether the next sequence has buffers with room: not where what runs was compiled, which was traced
        over upstream's layers.
        """
        return self.grows_in_place and not self._call.is_compiled

    def start(self, *, num_tokens: int = 1) -> LiveCache:
        """Return the live cache of a request for a prompt of ``num_tokens`` that has computed nothing."""
        return LiveCache(
            cache=with_room(self.new_cache(), num_tokens) if self.has_room else self.new_cache(),
            frequency_length=self.frequency_length(num_tokens),
        )

    def frequency_length(self, num_tokens: int) -> int:
        """Return what a prompt of this length is rotated by: prompts share states where it is equal."""
        return positions.frequency_length(self._length_rules, num_tokens)

    def must_start_over(self, live: LiveCache) -> bool:
        """Whether the next token of an answer changes the positions of all before it, as ``generate`` has it:
        then the sequence so far is to be computed anew, as a prompt.
        """
        if not (self._length_rules and self._adaptation.starts_over):
            return False
        return live.position == self._config.original_max_position_embeddings

    @torch.inference_mode()
    def advance(self, live: LiveCache, tokens: torch.Tensor) -> torch.Tensor:
        """Run ``tokens`` (shape ``[num_tokens]``) after what ``live`` has seen, updating ``live`` in place.

        Returns:
            Logits of the last token, shape ``[vocabulary_size]``, owned by the caller.
        """
        if tokens.ndim != 1 or tokens.numel() == 0:
            raise InvalidRequestError(
                f"tokens has shape {list(tokens.shape)}; give one dimension of at least one token"
            )
        outputs = self._forward(live, tokens.to(self.model.device))
        logits: torch.Tensor = outputs.logits[0, -1].clone()
        return logits

    @torch.inference_mode()
    def advance_all(self, live: LiveCache, tokens: torch.Tensor) -> torch.Tensor:
        """See :meth:`Driver.advance_all`."""
        outputs = self._forward(live, tokens.to(self.model.device), num_logits=tokens.numel())
        logits: torch.Tensor = outputs.logits[0].clone()
        return logits

    def advance_through(
        self, live: LiveCache, tokens: torch.Tensor, positions: Sequence[int]
    ) -> tuple[torch.Tensor, list[StateSnapshot]]:
        """See :meth:`Driver.advance_through`.

        Raises:
            UnsupportedModelError: what the model computes with is not all known (see ``inside``).
        """
        start = live.position
        offsets = [position - start for position in positions]
        with (
            torch.inference_mode(),
            recurrences_in_pieces(self.model),
            recording_of(live.cache, offsets, tokens.numel()) as recording,
        ):
            logits = self.advance(live, tokens)
        return logits, recording.snapshots(start)

    def capture(self, live: LiveCache) -> StateSnapshot:
        """See :meth:`Driver.capture`."""
        return capture_state(live.cache, live.position)

    def kv(self, live: LiveCache, start: int, end: int) -> KVSegment:
        """See :meth:`Driver.kv`."""
        return slice_kv(live.cache, start, end)

    def restore(
        self, state: StateSnapshot | None, kv: Sequence[KVSegment], *, position: int, num_tokens: int
    ) -> LiveCache:
        """See :meth:`Driver.restore`."""
        room = num_tokens if self.has_room else None
        return LiveCache(
            cache=build_cache(state, kv, new_cache=self.new_cache, expected_tokens=room),
            position=position,
            frequency_length=self.frequency_length(num_tokens),
        )

    def branch(self, live: LiveCache) -> LiveCache:
        """See :meth:`Driver.branch`."""
        room = live.position if self.has_room else None
        return replace(live, cache=copy_cache(live.cache, expected_tokens=room))

    def reason_against_loops(self, num_tokens: int) -> str | None:
        """See :meth:`Driver.reason_against_loops`."""
        if self.frequency_length(num_tokens):
            return "its positions hang on the length of the whole prompt, which generate is not given"
        return self._adaptation.reason_against_loops

    def hand_over(self, live: LiveCache, tokens: torch.Tensor) -> dict[str, Any]:
        """See :meth:`Driver.hand_over`. ``generate`` is given the rest of the prompt, and a mask over all of
        it: with all ids a model of pure states would run them again on top of its state, and say nothing.
        """
        left = tokens[live.position :].to(self.model.device)[None]
        found = {"input_ids": left, "attention_mask": left.new_ones((1, tokens.numel()))}
        # A copy: what was computed in inference mode cannot be written outside of it. It has upstream's own
        # layers, which a loop of upstream's may treat as it likes.
        if live.position == 0:
            return found
        return {**found, self._call.cache_name: copy_cache(live.cache), "use_cache": True}

    def has_same_bits(self, one: StateSnapshot | KVSegment, other: StateSnapshot | KVSegment) -> bool:
        """See :meth:`Driver.has_same_bits`."""
        if isinstance(one, StateSnapshot) and isinstance(other, StateSnapshot):
            return has_same_bits(one.frame, other.frame)
        if isinstance(one, KVSegment) and isinstance(other, KVSegment):
            return has_same_bits(one.tensors, other.tensors)
        return False

    def pack(self, payload: StateSnapshot | KVSegment) -> Packed:
        """See :meth:`Driver.pack`."""
        return packing.pack(payload, config=self.model.config)

    def unpack(self, packed: Packed) -> StateSnapshot | KVSegment:
        """See :meth:`Driver.unpack`."""
        return packing.unpack(packed, config=self.model.config)

    def host_memory(self, capacity_bytes: int) -> HostMemory:
        """See :meth:`Driver.host_memory`: pinned, and copied to beside what a CUDA device computes."""
        return pinned_host_memory(capacity_bytes)

    @torch.inference_mode()
    def logits_after(
        self, num_tokens: int, tokens: torch.Tensor, *, last_position: int | None = None
    ) -> torch.Tensor:
        """Run ``tokens`` from nothing in one call and return the logits after the first ``num_tokens`` of
        them, which no causal model computes from what follows.

        Args:
            num_tokens: Less than there are tokens.
            tokens: Shape ``[num_all_tokens]``.
            last_position: Where the last of them stands, instead of after the others.
        """
        from_end = tokens.numel() - num_tokens + 1
        tokens = tokens.to(self.model.device)
        position_ids = torch.arange(tokens.numel(), device=tokens.device)
        if last_position is not None:
            position_ids[-1] = last_position
        with positions.rotated_for(0):
            outputs = self._call(self.start().cache, tokens[None], position_ids[None], num_logits=from_end)
        logits: torch.Tensor = outputs.logits[0, -from_end].clone()
        return logits

    @torch.inference_mode()
    def advance_rows(
        self,
        cache: Any,
        tokens: torch.Tensor,
        *,
        positions: torch.Tensor,
        mask: torch.Tensor | None,
        longest: int,
    ) -> torch.Tensor:
        """Run one token of each of many sequences, which ``cache`` holds as rows and is updated with.

        Args:
            cache: Of the model's own kind.
            tokens: Shape ``[rows]``.
            positions: Where each token stands, shape ``[rows]``.
            mask: ``bool[rows, columns]``, which columns of ``cache`` each may see; None where it has none.
            longest: Tokens of the longest of them, the new one among them.

        Returns:
            Logits, shape ``[rows, vocabulary_size]``, owned by the caller.
        """
        self._warn_beyond_declared(longest)
        outputs = self._call(cache, tokens[:, None], positions[:, None], mask=mask)
        logits: torch.Tensor = outputs.logits[:, -1]
        return logits

    def _forward(self, live: LiveCache, tokens: torch.Tensor, *, num_logits: int = 1) -> Any:
        end = live.position + tokens.numel()
        self._warn_beyond_declared(end)
        position_ids = torch.arange(live.position, end, device=tokens.device)
        with positions.rotated_for(live.frequency_length if live.frequency_length > end else 0):
            outputs = self._call(live.cache, tokens[None], position_ids[None], num_logits=num_logits)
        live.cache = self._call.cache_of(outputs, live.cache)
        live.position = end
        return outputs

    def wait_for_device(self) -> None:
        """Return once the device has done what it was given: it works behind a clock's back."""
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)

    def moment(self) -> Any:
        """See :meth:`Driver.moment`: on a CUDA device, an event in what it was given."""
        if self.model.device.type != "cuda":
            return super().moment()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.model.device))
        return event

    def seconds_between(self, start: Any, end: Any) -> float:
        """See :meth:`Driver.seconds_between`."""
        if self.model.device.type != "cuda":
            return super().seconds_between(start, end)
        return float(start.elapsed_time(end)) / 1000

    def release(self) -> None:
        """Take off the fixes that this driver put on the model; another driver's stay. Neither this driver
        nor one made after it may be used afterwards.
        """
        while self._patches:
            self._patches.pop().undo()

    def _warn_beyond_declared(self, num_tokens: int) -> None:
        declared = self._declared_length
        if declared is None or num_tokens <= declared or not self._adaptation.has_context_limit:
            return
        self._declared_length = None
        _log.warning(
            "%s: a sequence is longer than the %s tokens that its configuration speaks of; it is computed as "
            "transformers computes it, and this is said once",
            self.family,
            f"{declared:,}",
        )
