"""What ``milepost serve`` is told, checked before a model is loaded."""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from milepost.byte_size import parse_bytes
from milepost.counts import as_count
from milepost.errors import ConfigurationError

__all__ = ["MOST_STREAM_INTERVAL_MS", "ServeSettings"]

_MOST_PORT = 65_535
_SHORTEST_KEY = 8
# Readers see a text grow by jumps from here on.
MOST_STREAM_INTERVAL_MS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """See the module.

    Attributes:
        model_name: What clients call the model.
        aliases: What else they may call it.
        host: Where to listen; this machine alone unless keys are given.
        port: Where to listen; 0 for any that is free.
        api_keys: Those that are let in; empty for all.
        operator_key: Lets see the page and the metrics, which tell of all tenants; where keys are given and
            this is not, nobody sees them.
        salt_by_key: Whether what one key left in the cache is another's to use.
        max_queue: Most requests that wait.
        stream_interval_ms: Tokens that come within so many milliseconds are streamed together; 0 streams each
            by itself.
        max_answer_tokens: Most tokens of a chat answer whose request gives no number.
        max_body_bytes: Most bytes of a request.
        includes_recomputed: Whether every answer's usage says why prompt tokens were computed again.
        shows_text: Whether the live page has the first words of prompts. Without API keys it has in any case:
            who reads it may ask for all of them.
    """

    model_name: str
    aliases: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8000
    api_keys: tuple[str, ...] = ()
    operator_key: str | None = None
    salt_by_key: bool = False
    max_queue: int = 64
    stream_interval_ms: int = 20
    max_answer_tokens: int = 4096
    max_body_bytes: int = 32 << 20
    includes_recomputed: bool = False
    shows_text: bool = False

    @classmethod
    def checked(
        cls,
        *,
        model_name: str,
        aliases: Iterable[str] = (),
        host: str = "127.0.0.1",
        port: int = 8000,
        api_keys: Iterable[str] = (),
        operator_key: str | None = None,
        salt_by_key: bool = False,
        max_queue: int = 64,
        stream_interval_ms: int = 20,
        max_answer_tokens: int = 4096,
        max_body: int | str = "32MiB",
        includes_recomputed: bool = False,
        shows_text: bool = False,
    ) -> Self:
        """Return the settings if they go together.

        Raises:
            ConfigurationError: one of them breaks its rule; the message names the remedy.
        """
        keys = tuple(api_keys)
        for key in (*keys, *([] if operator_key is None else [operator_key])):
            _check_key(key)
        if operator_key in keys:
            raise ConfigurationError(
                "the operator's key is a client's too, who would see what others ask; give it one of its own"
            )
        if not _is_loopback(host) and not keys:
            raise ConfigurationError(
                f"host={host!r} can be reached from other machines, and no API key is asked for; give keys "
                "(--api-key-file), or listen on 127.0.0.1 behind a proxy that asks who comes"
            )
        if salt_by_key and not keys:
            raise ConfigurationError("salt_by_key keeps keys apart, and there are none; give API keys")
        for name in (model_name, *aliases):
            if not name.strip():
                raise ConfigurationError("a model's name is empty; give one that clients can ask for")
        return cls(
            model_name=model_name,
            aliases=tuple(aliases),
            host=host,
            port=as_count("port", port, most=_MOST_PORT),
            api_keys=keys,
            operator_key=operator_key,
            salt_by_key=salt_by_key,
            max_queue=as_count("max_queue", max_queue),
            stream_interval_ms=as_count(
                "stream_interval_ms", stream_interval_ms, most=MOST_STREAM_INTERVAL_MS
            ),
            max_answer_tokens=as_count("max_answer_tokens", max_answer_tokens, least=1),
            max_body_bytes=parse_bytes(max_body),
            includes_recomputed=includes_recomputed,
            shows_text=shows_text or not keys,
        )

    @property
    def model_names(self) -> tuple[str, ...]:
        """All names that clients may use."""
        return (self.model_name, *self.aliases)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return _is_loopback(self.host)


def _check_key(key: Any) -> None:
    if not isinstance(key, str) or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError("a key has characters that no header carries; use letters, digits and -_.")
    if len(key) < _SHORTEST_KEY:
        raise ConfigurationError(
            f"a key has {len(key)} characters, and {_SHORTEST_KEY} are the least; a good one is made by "
            "python -c 'import secrets; print(secrets.token_urlsafe())'"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
