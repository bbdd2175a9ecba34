"""Lines of JSON that people have and that hold no prompt: what they are, and what to log instead."""

from collections.abc import Callable, Sequence

from milepost.errors import InvalidRequestError
from milepost.traces.fields import Record, plain_name

__all__ = ["HOW_TO_LOG", "LENGTHS_ONLY", "UnusableLogError", "lengths_only", "what_it_is"]

HOW_TO_LOG = (
    "log the request bodies at the gateway (JSON lines with 'messages' or 'prompt'), the rendered prompts "
    "('prompt_token_ids'), or chained block hashes ('hash_ids' with 'input_length')"
)
LENGTHS_ONLY = (
    "only lengths of prompts, as in the Azure and BurstGPT traces: which prompts begin alike cannot be known "
    f"from them, and that is all that a prefix cache works with; {HOW_TO_LOG}"
)


class UnusableLogError(InvalidRequestError):
    """A line is well-formed, as something else: where it is the first, so is the log."""


# As plain_name() writes them.
_LENGTHS = frozenset(
    (
        *(
            "contexttokens",
            "generatedtokens",
            "requesttokens",
            "responsetokens",
            "totaltokens",
            "inputlength",
        ),
        *("outputlength", "inputtokens", "outputtokens", "prompttokens", "completiontokens", "promptlen"),
        *(
            "numprompttokens",
            "numinputtokens",
            "inputlen",
            "outputlen",
            "promptlength",
            "isl",
            "osl",
            "tokens",
        ),
        *("numprefilltokens", "numdecodetokens", "completiontokens", "inputtokencount", "outputtokencount"),
    )
)
_LOG_TEXTS = ("log", "message", "msg", "MESSAGE", "textPayload")


def lengths_only(names: Sequence[str]) -> bool:
    """Return whether fields or columns of these names tell of lengths."""
    return any(plain_name(name) in _LENGTHS for name in names)


def what_it_is(layers: Sequence[Record]) -> str | None:
    """Return what a line without a prompt is and what to do, None where it is nothing known."""
    record = layers[0]
    known = next((told for is_so, told in _KNOWN if is_so(record)), None)
    if known is None and any(lengths_only(list(layer)) for layer in layers):
        known = f"the line has {LENGTHS_ONLY}"
    return known


def _is_answer(record: Record) -> bool:
    return str(record.get("object", "")).startswith(("chat.completion", "text_completion", "response"))


_KNOWN: tuple[tuple[Callable[[Record], bool], str], ...] = (
    (
        lambda record: "role" in record and "content" in record,
        "the line is a single message of a conversation and no request: a request has all messages before "
        f"it, too; {HOW_TO_LOG}",
    ),
    (
        lambda record: "custom_id" in record and "response" in record,
        "the line is the output of a batch, answers without their prompts; give the file that the batch was "
        "made from (its lines have 'body')",
    ),
    (_is_answer, f"the line is an answer without its prompt; {HOW_TO_LOG}"),
    (
        lambda record: "resourceSpans" in record or "scopeSpans" in record,
        "the line is an OTLP export, with spans inside of scopes inside of resources; write one span a line, "
        "with its attributes as an object",
    ),
    (
        lambda record: any(isinstance(record.get(name), str) for name in _LOG_TEXTS),
        "the line is a log message in JSON, as container logs have it, and no request with its prompt; "
        f"{HOW_TO_LOG}",
    ),
)
