"""Listening on a port, or saying in one line why nobody can."""

import socket

BACKLOG = 1_024  # connections that the system holds until they are taken


def check_port(host: str, port: int) -> None:
    """Raise ValueError where nothing can listen on `host` and `port`."""
    listening(host, port).close()


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        ValueError: none can.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:
        raise ValueError(f"--host {host} --port {port}: cannot listen there ({error}); choose others") from error
    return listener
