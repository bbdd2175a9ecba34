"""What a request used, in the fields that clients know; and why the rest of its prompt was computed."""

from collections.abc import Sequence
from typing import Any

from anthropic.types import Usage
from openai.types.completion_usage import CompletionTokensDetails, CompletionUsage, PromptTokensDetails
from openai.types.responses.response_usage import ResponseUsage

from milepost.accounting import RequestReport
from milepost.engines.completion import Completion

__all__ = [
    "CAUSES",
    "anthropic_usage",
    "anthropic_usage_so_far",
    "openai_usage",
    "recomputed_by_cause",
    "response_usage",
    "written_tokens",
]

# Why a prompt token was computed; see ``milepost.accounting``.
CAUSES = ("unseen", "alignment", "placement", "eviction", "reset")


def recomputed_by_cause(report: RequestReport) -> dict[str, int]:
    """Return how many prompt tokens were computed, by cause."""
    return {cause: getattr(report, cause) for cause in CAUSES}


def written_tokens(completion: Completion) -> int:
    """Return by how many tokens more a repetition of this prompt could resume than it did."""
    if not completion.report.checkpoints_stored:
        return 0
    deepest = max(completion.captured_positions, default=0)
    return max(0, deepest - completion.report.reused)


def openai_usage(
    completions: Sequence[Completion],
    *,
    answers_per_prompt: int | None = None,
    reasoning_tokens: int = 0,
    includes_recomputed: bool,
) -> CompletionUsage:
    """Return the usage of one request. A prompt counts once, however many answers it has.

    Args:
        completions: Its answers, each prompt's in turn; the first of each prompt is the one that computed it.
        answers_per_prompt: How many of them answer one prompt; all unless given.
        reasoning_tokens: How many of their tokens are reasoning.
        includes_recomputed: Whether to say why prompt tokens were computed.
    """
    first = completions[:: answers_per_prompt or len(completions)]
    num_prompt = sum(each.report.num_tokens for each in first)
    num_generated = sum(len(each.tokens) for each in completions)
    details = _prompt_details(first, includes_recomputed=includes_recomputed)
    return CompletionUsage(
        prompt_tokens=num_prompt,
        completion_tokens=num_generated,
        total_tokens=num_prompt + num_generated,
        prompt_tokens_details=PromptTokensDetails.model_validate(details),
        completion_tokens_details=CompletionTokensDetails(
            reasoning_tokens=min(reasoning_tokens, num_generated)
        ),
    )


def response_usage(
    completion: Completion, *, reasoning_tokens: int, includes_recomputed: bool
) -> ResponseUsage:
    """Return the usage of one answer in the names of OpenAI's newer API.

    Args:
        completion: The answer.
        reasoning_tokens: How many of its tokens are reasoning.
        includes_recomputed: Whether to say why prompt tokens were computed.
    """
    report = completion.report
    generated = len(completion.tokens)
    return ResponseUsage.model_validate(
        {
            "input_tokens": report.num_tokens,
            "input_tokens_details": _prompt_details([completion], includes_recomputed=includes_recomputed),
            "output_tokens": generated,
            "output_tokens_details": {"reasoning_tokens": min(reasoning_tokens, generated)},
            "total_tokens": report.num_tokens + generated,
        }
    )


def _prompt_details(first: Sequence[Completion], *, includes_recomputed: bool) -> dict[str, Any]:
    """Return what was reused of prompts, by the first answer of each."""
    details: dict[str, Any] = {
        "cached_tokens": sum(each.report.reused for each in first),
        "cache_write_tokens": sum(written_tokens(each) for each in first),
    }
    if includes_recomputed:
        causes = [recomputed_by_cause(each.report) for each in first]
        details["recomputed"] = {cause: sum(each[cause] for each in causes) for cause in CAUSES}
    return details


def anthropic_usage(completion: Completion, *, num_generated: int) -> Usage:
    """Return the usage of one answer as Anthropic counts: prompt tokens that were neither read from the cache
    nor written to it are ``input_tokens``; the three add up to the prompt.

    Args:
        completion: The answer.
        num_generated: Tokens of the answer that its client is given.
    """
    written = written_tokens(completion)
    return Usage(
        input_tokens=completion.report.recomputed - written,
        cache_read_input_tokens=completion.report.reused,
        cache_creation_input_tokens=written,
        output_tokens=num_generated,
    )


def anthropic_usage_so_far(report: RequestReport | None, *, num_prompt_tokens: int) -> Usage:
    """Return the usage of an answer that begins; what is written to the cache is told at its end.

    Args:
        report: What was reused of its prompt; None where that is not known yet.
        num_prompt_tokens: Length of its prompt.
    """
    reused = 0 if report is None else report.reused
    return Usage(
        input_tokens=num_prompt_tokens - reused,
        cache_read_input_tokens=reused,
        cache_creation_input_tokens=0,
        output_tokens=0,
    )
