"""Valkey servers of a test's own, which it may stop, slow down, fill or put together to a cluster."""

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.test import override_settings
from valkey import Valkey as Client

from recplatform.devstack.ports import free_port
from recplatform.devstack.process import Children
from recplatform.devstack.valkey_server import Valkey


class _Configured(Valkey):
    extra: tuple[str, ...] = ()

    def _config(self) -> list[str]:
        return [*super()._config(), *self.extra]


class PrivateServer:
    """A server with a journal, so that an index survives a restart."""

    def __init__(self, folder: Path, *config: str, search: bool = True) -> None:
        self._children = Children(folder / "log")
        self._server = _Configured(folder, durable=True, search=search)
        self._server.extra = config
        self.url = ""
        self.start()

    def start(self) -> None:
        self._server.start(self._children)
        [self.url] = self._server.wait().values()

    def stop(self) -> None:
        self._children.stop()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Hold the process: it takes connections and commands, and answers once it goes on."""
        [child] = self._children.started
        child.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            child.process.send_signal(signal.SIGCONT)

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port is not None
        return port

    def connect(self) -> Client:
        """A connection past the code under test, for CONFIG and the like."""
        return Client.from_url(self.url)

    @contextmanager
    def in_use(self, **changes: Any) -> Iterator[Client]:
        """Let ``indexes.valkey`` speak to it; yields a client of the test's own."""
        changes = {"VALKEY_URL": self.url, "VALKEY_CLUSTER": False, **changes}
        with override_settings(**changes), self.connect() as own:
            yield own


def cluster_node(folder: Path, *, search: bool) -> PrivateServer:
    """A server that can be put together to a cluster."""
    # Its own default for the second port lies where outgoing connections take theirs.
    config = ("cluster-enabled yes", "cluster-node-timeout 2000", f"cluster-port {free_port()}")
    return PrivateServer(folder, *config, search=search)


def form_cluster(servers: Sequence[PrivateServer]) -> str:
    """Share all slots among the servers and return the address of the first."""
    password = urlsplit(servers[0].url).password or ""
    with servers[0].connect() as first:
        bus_port = first.config_get("cluster-port")["cluster-port"]
    share = -(-16384 // len(servers))
    for number, server in enumerate(servers):
        with server.connect() as own:
            own.execute_command(
                "CLUSTER", "ADDSLOTSRANGE", number * share, min((number + 1) * share, 16384) - 1
            )
            own.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            own.execute_command("CLUSTER", "MEET", "127.0.0.1", servers[0].port, bus_port)
            own.config_set("requirepass", password)
    address = f"valkey://:{password}@127.0.0.1:{{}}/0"
    for server in servers:
        with Client.from_url(address.format(server.port)) as own:
            until = time.monotonic() + 20
            while own.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                assert time.monotonic() < until, "the cluster did not form"
                time.sleep(0.05)
    return address.format(servers[0].port)
