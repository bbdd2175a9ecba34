"""Snapshots of a server's ``/status.json``, or one line on why there is none."""

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, final

from milepost.errors import ConfigurationError

__all__ = ["StatusReader"]

_TIMEOUT_SECONDS = 30.0
_MOST_BYTES = 16 << 20
_VERSION = 1


@final
class StatusReader:
    """See the module.

    Args:
        url: Of the server, with or without a path.
        operator_key: Where it asks for one.

    Raises:
        ConfigurationError: the URL is none.
    """

    def __init__(self, url: str, *, operator_key: str | None = None) -> None:
        given = url if "://" in url else f"http://{url}"
        try:
            parts = urllib.parse.urlsplit(given)
            is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_url = False
        if not is_url or not given.isascii() or any(each.isspace() for each in given):
            raise ConfigurationError(f"{url!r} is no server's URL; give one like http://127.0.0.1:8000")
        if operator_key is not None and not (operator_key.isascii() and operator_key.isprintable()):
            raise ConfigurationError("the operator's key has characters that no header carries")
        self.url = f"{parts.scheme}://{parts.netloc}"
        self._headers = {} if operator_key is None else {"Authorization": f"Bearer {operator_key}"}

    def read(self) -> dict[str, Any]:
        """Return a snapshot.

        Raises:
            ConfigurationError: as :meth:`read_bytes`, or it is one of another version.
        """
        snapshot: dict[str, Any] = json.loads(self.read_bytes())
        return snapshot

    def read_bytes(self) -> bytes:
        """Return a snapshot as JSON.

        Raises:
            ConfigurationError: there is no server, it asks for a key, or it is no server of ours.
        """
        request = urllib.request.Request(f"{self.url}/status.json", headers=self._headers)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
                body: bytes = answer.read(_MOST_BYTES)
        except urllib.error.HTTPError as error:
            with error:
                raise ConfigurationError(self._refusal(error)) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise ConfigurationError(
                f"no server answers at {self.url} ({reason}); start one with milepost serve, or give its URL"
            ) from error
        try:
            found = json.loads(body)
            version = found["version"] if isinstance(found, dict) else None
        except (ValueError, KeyError):
            version = None
        if version != _VERSION:
            raise ConfigurationError(
                f"what answers at {self.url} is no milepost server of this version; give the URL of one"
            )
        return body

    def _refusal(self, error: urllib.error.HTTPError) -> str:
        if error.code == 401:
            has_sent = "the key that was sent is not it" if self._headers else "none was sent"
            return (
                f"{self.url} shows this to its operator alone, and {has_sent}; give --operator-key, as the "
                "server got it"
            )
        if error.code == 503:
            return f"{self.url} serves nothing just now; its log says why"
        return f"{self.url} has no /status.json (status {error.code}); give the URL of a milepost server"
