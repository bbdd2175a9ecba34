"""Policies by name: one table, and the short notation of the command line.

A policy is written ``name``, ``name:value`` or ``name:option=value,option=value``; the bare value is that of
the policy's first option, and lists of positions are joined by ``+``. Positions alone are evicted least
recently used first; with ``/learned`` after them, as the learned policy would::

    balanced:8        histogram-dp:count=8,decay=0.99        offsets:start=512+1024,end=64+192,every=4096
    tail+junction/learned

Adding a policy is one file and one entry of the table.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from milepost.errors import ConfigurationError
from milepost.placement.base import PlacementPolicy
from milepost.placement.heuristics import Balanced, Dense, Dyadic, NoCheckpoints, Periodic, SquareRoot
from milepost.placement.histogram import HistogramDP
from milepost.placement.junctions import Junction, PromptTail, TailAndJunction
from milepost.placement.offsets import Offsets
from milepost.policies.base import CachePolicy
from milepost.policies.learned import learned, with_learned_eviction
from milepost.policies.peers import SpacedMessageEnds, clairvoyant, marconi, mlx, sglang, tensorrt, vllm

__all__ = ["POLICIES", "PolicyKind", "PolicyOption", "describe_policies", "parse_policy"]


@dataclass(frozen=True, slots=True)
class PolicyOption:
    """One option of a policy: its name in the notation, the constructor's keyword, and how to read it."""

    name: str
    keyword: str
    read: Callable[[str], Any]
    example: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class PolicyKind:
    """One policy: its constructor, its options (the first may be written without a name), what it does."""

    construct: Callable[..., PlacementPolicy | CachePolicy]
    summary: str
    options: tuple[PolicyOption, ...] = ()


def _whole_number(text: str) -> int:
    # ``1e9`` is one too.
    number = float(text)
    if not number.is_integer():
        raise ValueError(text)
    return int(text) if text.lstrip("-").isdecimal() else int(number)


def _whole_numbers(text: str) -> tuple[int, ...]:
    return tuple(map(_whole_number, text.split("+")))


def _yes_or_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError(text)
    return text == "yes"


_KINDS: Mapping[Callable[[str], Any], str] = {
    _whole_number: "a whole number",
    _whole_numbers: "whole numbers joined by +",
    _yes_or_no: "yes or no",
}
_START = PolicyOption("start", "from_start", _whole_numbers, "512+1024")
_END = PolicyOption("end", "from_end", _whole_numbers, "64+192")
_INTERVAL = PolicyOption("every", "every", _whole_number, "4096")
_EVERY = PolicyOption("every", "every", _whole_number, "512", required=True)
_SHARE = PolicyOption("share", "share", float, "0.47")
_CHUNK = PolicyOption("chunk", "chunk", _whole_number, "8192")
_COUNT = PolicyOption("count", "count", _whole_number, "8", required=True)

POLICIES: Mapping[str, PolicyKind] = MappingProxyType(
    {
        "none": PolicyKind(NoCheckpoints, "no checkpoint"),
        "dense": PolicyKind(Dense, "every multiple of EVERY tokens (block caching)", (_EVERY,)),
        "periodic": PolicyKind(Periodic, "every multiple of EVERY tokens, and the prompt's tail", (_EVERY,)),
        "balanced": PolicyKind(Balanced, "COUNT positions that split the prompt equally", (_COUNT,)),
        "sqrt": PolicyKind(
            SquareRoot, "every multiple of sqrt(length) tokens, floored to the grid (arXiv 2605.05219)"
        ),
        "dyadic": PolicyKind(
            Dyadic, "the powers of two from START on", (PolicyOption("start", "start", _whole_number, "768"),)
        ),
        "tail": PolicyKind(PromptTail, "the deepest position that the same prompt can resume from"),
        "junction": PolicyKind(Junction, "where the prompt diverges from an earlier one"),
        "tail+junction": PolicyKind(TailAndJunction, "both of these"),
        "offsets": PolicyKind(
            Offsets, "fixed distances from the prompt's start and end", (_START, _END, _INTERVAL)
        ),
        "histogram-dp": PolicyKind(
            HistogramDP,
            "COUNT positions, planned exactly for the overlap depths seen lately (arXiv 2605.05219)",
            (
                _COUNT,
                PolicyOption("decay", "decay", float, "0.99"),
                PolicyOption("smoothing", "smoothing", float, "0.0"),
            ),
        ),
        "vllm": PolicyKind(vllm, "stock vLLM: tail and junction, KV of whole prompts, one list of blocks"),
        "sglang": PolicyKind(
            sglang,
            "SGLang: request end and branch points, states in a pool of their own",
            (
                _SHARE,
                _CHUNK,
                PolicyOption("single", "single", _yes_or_no, "yes"),
            ),
        ),
        "tensorrt": PolicyKind(
            tensorrt,
            "TensorRT-LLM: fixed distances from start and end, KV of whole prompts",
            (_START, _END, _INTERVAL, PolicyOption("branch", "branch", _yes_or_no, "yes")),
        ),
        "marconi": PolicyKind(
            marconi,
            "tail and junction, evicted by recency and by FLOPs saved per byte (arXiv 2411.19379)",
            (PolicyOption("alpha", "alpha", float, "0.5"),),
        ),
        "llamacpp": PolicyKind(
            SpacedMessageEnds,
            "llama.cpp: ends of messages at least STEP tokens apart, and the prompt's end",
            (
                PolicyOption("step", "step", _whole_number, "8192"),
                PolicyOption("count", "count", _whole_number, "32"),
            ),
        ),
        "mlx": PolicyKind(mlx, "mlx-lm: the first message's end and the prompt's, oldest first"),
        "clairvoyant": PolicyKind(
            clairvoyant, "knows the requests to come: nearly a bound, for a replay only"
        ),
        "learned": PolicyKind(
            learned,
            "every position that is worth its memory, learned from the traffic",
            (_SHARE, _CHUNK),
        ),
    }
)


def parse_policy(notation: str) -> CachePolicy:
    """Return a new policy from its notation. A placement alone comes with the eviction of the least recently
    used.

    Raises:
        ConfigurationError: the name or an option is unknown, missing, given twice or has a bad value. The
            message names the closest known one.

    >>> parse_policy("balanced:8").placement
    Balanced(count=8)
    >>> parse_policy("tail+junction/learned").placement
    TailAndJunction()
    >>> parse_policy("offsets:end=64+192").placement
    Offsets(from_start=(), from_end=(64, 192), every=None)
    """
    if not isinstance(notation, str):
        raise ConfigurationError(f"policy={notation!r}; give a notation such as 'learned' or 'balanced:8'")
    placed, has_eviction, eviction = (part.strip() for part in notation.partition("/"))
    name, _, given = placed.partition(":")
    name = name.strip()
    kind = POLICIES.get(name)
    if kind is None:
        raise ConfigurationError(f"policy {name!r} is unknown; {_suggest(name, POLICIES)}")
    by_name = {option.name: option for option in kind.options}
    values: dict[str, Any] = {}
    for index, item in enumerate(given.split(",") if given else ()):
        key, has_key, text = item.partition("=")
        if not has_key:
            if index > 0 or not kind.options:
                raise ConfigurationError(f"{item!r} in policy {notation!r} has no name; write {_usage(name)}")
            key, text = kind.options[0].name, item
        option = by_name.get(key.strip())
        if option is None:
            raise ConfigurationError(
                f"option {key.strip()!r} is unknown to policy {name!r}; {_suggest(key.strip(), by_name)}"
            )
        if option.keyword in values:
            raise ConfigurationError(f"option {option.name!r} is given twice in {notation!r}; give it once")
        values[option.keyword] = _read(option, text.strip(), notation)
    for option in kind.options:
        if option.required and option.keyword not in values:
            raise ConfigurationError(f"policy {notation!r} lacks {option.name!r}; write {_usage(name)}")
    policy = kind.construct(**values)
    if has_eviction:
        if eviction != "learned" or isinstance(policy, CachePolicy):
            raise ConfigurationError(
                f"policy {notation!r} ends in /{eviction}; write /learned, and only after positions that "
                "come with no eviction of their own, as in tail+junction/learned"
            )
        return with_learned_eviction(policy)
    return policy if isinstance(policy, CachePolicy) else CachePolicy(policy)


def describe_policies() -> tuple[tuple[str, str], ...]:
    """Return ``(notation, what it does)`` of every policy, in the table's order, for help texts."""
    return tuple((_usage(name), kind.summary) for name, kind in POLICIES.items())


def _read(option: PolicyOption, text: str, notation: str) -> Any:
    try:
        return option.read(text)
    except ValueError:
        raise ConfigurationError(
            f"{option.name}={text!r} in policy {notation!r} is not {_KINDS.get(option.read, 'a number')}; "
            f"write {option.name}={option.example}"
        ) from None


def _usage(name: str) -> str:
    """Return an example of the notation: bare for one required option, by name otherwise."""
    options = POLICIES[name].options
    if not options:
        return name
    first, *others = options
    head = first.example if first.required else f"{first.name}={first.example}"
    return ",".join([f"{name}:{head}", *(f"{option.name}={option.example}" for option in others)])


def _suggest(given: str, known: Mapping[str, object]) -> str:
    closest = difflib.get_close_matches(given.lower(), known)
    everything = f"it is one of {', '.join(known)}" if known else "it takes none"
    return f"did you mean {' or '.join(map(repr, closest))}? ({everything})" if closest else everything
