"""Bind a listening socket. A leaf: `gapless check` tries the addresses without importing the daemon."""

import socket


def bind(host: str, port: int) -> socket.socket:
    """Return a bound socket; port 0 takes a free one. Raises `OSError` with the address in its message."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
    return bound
