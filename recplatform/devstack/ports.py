"""Addresses of servers on this machine: free ports, and whether something answers at one."""

import http.client
import random
import socket
from collections.abc import Mapping

HOST = "127.0.0.1"
# Below the range from which the kernel takes ports for outgoing connections, so
# that nobody can take a port between the moment it was found and its use.
FREE_PORTS = range(20_000, 32_000)


def free_port() -> int:
    """Return a port on which nothing listens."""
    for port in random.sample(FREE_PORTS, 200):
        if is_free(port):
            return port
    raise OSError(f"no free port between {FREE_PORTS.start} and {FREE_PORTS.stop}")


def is_free(port: int) -> bool:
    """Tell whether a server could listen on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def listening_socket() -> socket.socket:
    """Return a bound, listening socket to hand to a server of ours: no race for its port."""
    listener = socket.create_server((HOST, 0), backlog=1024)
    listener.set_inheritable(True)
    return listener


def http_status(
    port: int,
    path: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    timeout_s: float = 10.0,
) -> int:
    """Return the status of one call, 0 when nothing answers."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout_s)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
