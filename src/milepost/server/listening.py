"""The socket, opened before the work of warming up, so that a port that is taken is found out first."""

import socket

from milepost.errors import ConfigurationError
from milepost.server.settings import ServeSettings

__all__ = ["bind"]

_BACKLOG = 2048


def bind(settings: ServeSettings) -> socket.socket:
    """Return a socket that listens where ``settings`` say.

    Raises:
        ConfigurationError: it cannot; the message names the remedy.
    """
    host, port = settings.host.strip("[]"), settings.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; give another --port (0 for any "
            "that is free) or --host"
        ) from error
    return listener
