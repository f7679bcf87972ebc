"""Hashes on their way into Valkey: short pipelines, each with a time limit."""

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
from django.test import override_settings

from indexes import hash_writer, valkey
from indexes.errors import SearchRejected, SearchTimeout
from indexes.hash_writer import HashWriter
from tests.indexes.servers import PrivateServer

FIELDS = {"vector": b"\0" * 1500, "n": 1}


class Stalling:
    """A way to a server on which pipelines of more than ``most`` commands never get an answer.

    ``pipelines`` holds the commands and the bytes of each pipeline that came.
    """

    def __init__(self, server: PrivateServer, most: int) -> None:
        self._target = server
        self._most = most
        self.pipelines: list[tuple[int, int]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = re.sub(r":\d+/", f":{self._listener.getsockname()[1]}/", server.url)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target.port)) as server:
            client.settimeout(20)
            with suppress(OSError):
                while data := client.recv(1 << 20):
                    # What is sent in one go may come in pieces.
                    client.settimeout(0.02)
                    with suppress(TimeoutError):
                        while more := client.recv(1 << 20):
                            data += more
                    client.settimeout(20)
                    writes = data.count(b"HSET")
                    if writes:
                        self.pipelines.append((writes, len(data)))
                    if writes > self._most:
                        continue
                    server.sendall(data)
                    replies = b""
                    while replies.count(b"\r\n") < max(writes, 1):
                        replies += server.recv(1 << 20)
                    client.sendall(replies)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateServer]:
    server = PrivateServer(tmp_path_factory.mktemp("valkey"), search=False)
    yield server
    server.stop()


@pytest.fixture
def stalling(server: PrivateServer) -> Iterator[type[Stalling] | object]:
    made: list[Stalling] = []

    def make(most: int) -> Stalling:
        made.append(Stalling(server, most))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


def written(url: str, count: int, timeout_s: float = 10, **options: object) -> int:
    with (
        override_settings(VALKEY_URL=url, VALKEY_CLUSTER=False),
        HashWriter(timeout_s=timeout_s, **options) as writer,  # type: ignore[arg-type]  # passed on
    ):
        for number in range(count):
            writer.put(b"item:%d" % number, FIELDS)
        return writer.flush()


def held(server: PrivateServer) -> int:
    with server.connect() as own:
        found = own.dbsize()
        own.flushall()
    return int(found)


def test_pipelines_are_bounded_in_bytes(server, stalling):
    proxy = stalling(200)
    assert written(proxy.url, 100) == 100 == held(server)
    assert sum(commands for commands, _ in proxy.pipelines) == 100
    assert max(size for _, size in proxy.pipelines) <= hash_writer.PIPELINE_BYTES
    assert max(commands for commands, _ in proxy.pipelines) > 5


def test_pipelines_are_bounded_in_commands(server, stalling, monkeypatch):
    monkeypatch.setattr(hash_writer, "PIPELINE_COMMANDS", 3)
    proxy = stalling(200)
    assert written(proxy.url, 20) == 20 == held(server)
    assert {commands for commands, _ in proxy.pipelines} == {3, 2}


def test_a_hash_larger_than_a_pipeline_goes_alone(server, stalling):
    proxy = stalling(200)
    assert written(proxy.url, 5, pipeline_bytes=100) == 5 == held(server)
    assert [commands for commands, _ in proxy.pipelines] == [1] * 5


def test_a_pipeline_that_stalls_is_sent_in_halves(server, stalling):
    proxy = stalling(3)
    assert written(proxy.url, 200, timeout_s=0.3) == 200 == held(server)
    # Each connection stalls twice at most, however many pipelines were waiting.
    assert sum(commands > 3 for commands, _ in proxy.pipelines) <= 2 * hash_writer.CONNECTIONS


def test_what_never_ends_is_an_error_that_can_be_tried_again(server, stalling):
    with pytest.raises(SearchTimeout) as caught:
        written(stalling(0).url, 9, timeout_s=0.1)
    assert caught.value.retryable
    assert held(server) == 0


def test_the_worker_shows_that_it_is_alive_while_a_write_waits(server, monkeypatch):
    monkeypatch.setattr(hash_writer, "BEAT_S", 0.02)
    beats: list[int] = []
    go_on = threading.Event()

    def beat() -> None:
        beats.append(1)
        if len(beats) == 5:
            go_on.set()

    frozen = threading.Event()

    def freeze() -> None:
        with server.frozen():
            frozen.set()
            go_on.wait(10)

    holding = threading.Thread(target=freeze)
    holding.start()
    frozen.wait(10)
    assert written(server.url, 300, beat=beat) == 300
    holding.join()
    assert len(beats) >= 5
    assert held(server) == 300


def test_an_error_of_the_beat_ends_the_write(server, monkeypatch):
    monkeypatch.setattr(hash_writer, "BEAT_S", 0.01)

    class Lost(Exception):
        pass

    def beat() -> None:
        raise Lost

    with server.frozen(), pytest.raises(Lost):
        # Shorter than the exit would otherwise take.
        written(server.url, 300, beat=beat, timeout_s=0.2)
    held(server)


def test_a_write_that_is_refused_is_an_error(namespace: str):
    valkey.writer().set(f"{namespace}:text", "not a hash")
    with HashWriter() as writer:
        writer.put(f"{namespace}:text".encode(), {"a": "b"})
        with pytest.raises(SearchRejected, match="WRONGTYPE"):
            writer.flush()


def test_a_writer_counts_from_flush_to_flush(namespace: str):
    with HashWriter() as writer:
        for count in (3, 0, 2):
            for number in range(count):
                writer.put(f"{namespace}:{number}".encode(), {"a": "b"})
            assert writer.flush() == count
