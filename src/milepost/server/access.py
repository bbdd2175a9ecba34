"""Who asks, and what of the cache is theirs.

A client's part of the cache is named by its key, where keys are kept apart, and by the ``cache_salt`` of the
request. Two parts share no state, no KV and no match, so that no time to a first token tells one client what
another one asked. They share the memory: how much of it others use does show.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from milepost.server.faults import Fault, RefusedError
from milepost.server.settings import ServeSettings

__all__ = ["Access", "Caller"]

_BEARER, _BASIC = "bearer ", "basic "
# A browser asks its reader for the key, and sends it as a password with each request to this server.
_ASK_READER = 'Basic realm="Milepost operator"'


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request.

    Attributes:
        salt: Of the caller's key, where keys are kept apart; never the key.
    """

    salt: str = ""

    def tenant(self, cache_salt: str | None) -> str:
        """Return whose part of the cache a request with this ``cache_salt`` uses."""
        # With its length before it, so that no client's salt can pass for another one's key.
        return f"{len(self.salt)}:{self.salt}{cache_salt or ''}" if self.salt or cache_salt else ""


@final
class Access:
    """Lets in those who have a key."""

    def __init__(self, settings: ServeSettings) -> None:
        self._keys = [_digest(key) for key in settings.api_keys]
        self._operator = None if settings.operator_key is None else _digest(settings.operator_key)
        self._salts_by_key = settings.salt_by_key

    @property
    def nobody(self) -> Caller:
        """Who uses the part of the cache that no key has to itself."""
        return Caller()

    def caller(self, headers: Mapping[str, str]) -> Caller:
        """Return who sent a request with these headers.

        Raises:
            RefusedError: keys are asked for, and none of them came.
        """
        if not self._keys:
            return Caller()
        given = _digest(_key_of(headers))
        # All are compared, each in constant time: how long it takes says nothing of the keys.
        matches = [hmac.compare_digest(given, key) for key in self._keys]
        if not any(matches):
            raise _refused("no API key, or a wrong one; send 'Authorization: Bearer KEY' or 'x-api-key: KEY'")
        return Caller(given.hex() if self._salts_by_key else "")

    def require_operator(self, headers: Mapping[str, str]) -> None:
        """Raise ``RefusedError`` unless these headers may see what all clients do."""
        if self._operator is not None:
            key = _password_of(headers) or _key_of(headers)
            if not hmac.compare_digest(_digest(key), self._operator):
                raise _refused(
                    "this is for the operator: send the key given with --operator-key, as 'Authorization: "
                    "Bearer KEY', or to a browser that asks as the password",
                    challenge=_ASK_READER,
                )
        elif self._keys:
            raise _refused(
                "this tells of all clients, and no key is set for who may see it; start the server with "
                "--operator-key"
            )


def _key_of(headers: Mapping[str, str]) -> str:
    authorization = headers.get("authorization", "")
    if authorization.lower().startswith(_BEARER):
        return authorization[len(_BEARER) :].strip()
    return headers.get("x-api-key", "")


def _password_of(headers: Mapping[str, str]) -> str | None:
    """Return what a browser sends; None where it is nothing, or not in that form."""
    authorization = headers.get("authorization", "")
    if not authorization.lower().startswith(_BASIC):
        return None
    try:
        decoded = base64.b64decode(authorization[len(_BASIC) :].strip(), validate=True).decode()
    except ValueError:
        return None
    return decoded.partition(":")[2]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()


def _refused(message: str, *, challenge: str = "Bearer") -> RefusedError:
    return RefusedError(
        Fault(
            status=401,
            message=message,
            kind="authentication_error",
            code="invalid_api_key",
            challenge=challenge,
        )
    )
