"""Connections to Valkey that keep to the time limit of the thread that uses them.

A time limit covers connecting, sending and reading together. A primary that became a
replica refuses writes on the connections that were made to it while the name it is
reached by leads to its successor already: after such a refusal every connection made
before is replaced at its next use.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Final

import valkey
from valkey import ValkeyCluster, exceptions

Client = valkey.Valkey | ValkeyCluster

# What a call may take where its caller sets no limit: builds and admin pages.
DEFAULT_TIMEOUT_S: Final = 30.0

_limit = threading.local()


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Let all calls of this thread inside the block take no longer than that together."""
    outer: float | None = getattr(_limit, "until", None)
    until = monotonic() + seconds
    _limit.until = until if outer is None else min(outer, until)
    try:
        yield
    finally:
        _limit.until = outer


def limit_each(seconds: float) -> None:
    """Let no command of this thread take longer than that, where no time limit says less."""
    _limit.each = seconds


def remaining() -> float:
    """Return the seconds that the next step may take. Raises the client's TimeoutError when none are left."""
    until: float | None = getattr(_limit, "until", None)
    if until is None:
        return getattr(_limit, "each", DEFAULT_TIMEOUT_S)
    left = until - monotonic()
    if left <= 0:
        raise exceptions.TimeoutError("No time is left for this call")
    return left


# When an address last refused a write as a replica does.
_demoted_at: dict[tuple[str, int], float] = {}


class _Limited(valkey.Connection):
    """A connection that waits no longer than the running time limit allows.

    A limit on the connection itself would need a pool for each duration.
    """

    _since = 0.0

    def _connect(self) -> Any:
        self._since = monotonic()
        # The second one bounds a TLS handshake.
        self.socket_connect_timeout = self.socket_timeout = remaining()
        return super()._connect()

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        if self._sock is not None and self._since <= _demoted_at.get((self.host, self.port), -1):
            self.disconnect()
        if self._sock is None:
            self.connect()
        if self._sock is not None:
            self._sock.settimeout(remaining())
        super().send_packed_command(command, check_health)

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            if self._sock is not None:
                limit = remaining()
                current = self._sock.gettimeout() or 0.0
                # For each of the replies to a pipeline: setting it gives up the interpreter.
                if not limit <= current <= limit * 1.02:
                    self._sock.settimeout(limit)
        except exceptions.TimeoutError:
            # The reply is still to come: the connection cannot be used again.
            self.disconnect()
            raise
        try:
            return super().read_response(*args, **kwargs)
        except exceptions.ReadOnlyError:
            _demoted_at[self.host, self.port] = monotonic()
            raise


class _LimitedTLS(_Limited, valkey.SSLConnection):
    pass


def connect(url: str, *, cluster: bool) -> Client:
    """Return a client of the server at an address, or of the cluster that it is part of."""
    scheme, _, rest = url.partition("://")
    options: dict[str, Any] = {
        "connection_class": _LimitedTLS if scheme in ("valkeys", "rediss") else _Limited,
        "protocol": 2,
        "socket_keepalive": True,
        "lib_name": None,
        "lib_version": None,
    }
    if options["connection_class"] is _LimitedTLS and not cluster:
        # Else any certificate of a known authority would do. The nodes of a cluster may go by
        # addresses that their certificates do not hold. An option in the URL says otherwise.
        options["ssl_check_hostname"] = True
    # The client would put its own connection class in for a TLS scheme.
    plain = f"valkey://{rest}"
    if cluster:
        return ValkeyCluster(url=plain, **options)
    return valkey.Valkey(connection_pool=valkey.ConnectionPool.from_url(plain, **options))
