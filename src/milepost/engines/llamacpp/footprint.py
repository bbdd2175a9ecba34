"""What an opened model's states and KV cost, by what the probe saw of them."""

from milepost.engines.llamacpp.probe import KV_TOKENS, LlamaProbeReport
from milepost.errors import UnsupportedModelError
from milepost.footprint import Footprint

__all__ = ["measured_footprint"]


def measured_footprint(report: LlamaProbeReport, *, segment_tokens: int) -> Footprint:
    """Return what this model's checkpoints and KV cost, the cost of computing in tokens.

    A piece of KV is some bytes for each of its tokens, and a few for itself, which are charged to the tokens
    of a whole segment.

    Raises:
        UnsupportedModelError: what it keeps of more tokens is less.
    """
    (shorter, longer), (few, many) = report.kv_bytes, KV_TOKENS
    per_token, rest = divmod(longer - shorter, many - few)
    of_itself = shorter - few * per_token
    if rest or per_token < 0 or of_itself < 0:
        raise UnsupportedModelError(
            f"{report.family}: the KV of {few} and of {many} tokens takes {shorter:,} and {longer:,} bytes, "
            "which follows no simple rule"
        )
    return Footprint(
        checkpoint_bytes=report.checkpoint_bytes if report.has_state else 0,
        kv_bytes_per_token=per_token + -(-of_itself // segment_tokens),
    )
