"""Reasoning as clients carry it from turn to turn without reading it: Anthropic's ``signature`` of a thinking
block, OpenAI's ``encrypted_content`` of a reasoning item.

Here it is a copy of the text, and a digest of it against damage. It is no secret and proves nothing: it is
there so that a client that shortens, tidies or hides what it shows still sends back what the model wrote.
What another server sealed is not ours to read, and is left alone.
"""

import base64
import binascii

import xxhash

from milepost.errors import InvalidRequestError

__all__ = ["returned_reasoning", "seal", "unseal"]

_MARK = "milepost1."
_DIGEST_BYTES = 8


def seal(reasoning: str) -> str:
    """Return ``reasoning`` as a client carries it."""
    data = reasoning.encode(errors="surrogatepass")
    return _MARK + base64.urlsafe_b64encode(xxhash.xxh3_64_digest(data) + data).decode()


def unseal(sealed: str | None) -> str | None:
    """Return the reasoning in what a client brought; None where it is not of this server's making.

    >>> unseal(seal("first, the sum")), unseal("EqQBCgIYAhIM")
    ('first, the sum', None)
    """
    if not sealed or not sealed.startswith(_MARK):
        return None
    try:
        data = base64.b64decode(sealed[len(_MARK) :], altchars=b"-_", validate=True)
        digest, text = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        return text.decode() if digest == xxhash.xxh3_64_digest(text) else None
    except (binascii.Error, ValueError):
        return None


def returned_reasoning(shown: str, sealed: str | None) -> str:
    """Return what an answer thought, as its client brings it back.

    Args:
        shown: What the client was shown of it; empty where it was shown nothing.
        sealed: What came with it to be carried unread.

    Raises:
        InvalidRequestError: the two are of different thoughts.
    """
    kept = unseal(sealed)
    if kept is None:
        return shown
    if shown and shown.strip() != kept.strip():
        raise InvalidRequestError(
            "a reasoning is not the one that was given out with its signature (encrypted_content); send both "
            "back as they came, or leave the signature out"
        )
    return kept
