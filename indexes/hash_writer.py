"""Writing many hashes: short pipelines over several connections, each with a time limit.

Some deployments of valkey-search stall for good on pipelines above about 20 KB on the
wire (its issue 1293). So they are kept shorter than that, several connections make up
for it, and one that does not end in time is sent again in halves: writing a hash twice
does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from queue import Empty, Full, Queue
from threading import Condition, Event
from types import TracebackType
from typing import Any, Final

from indexes.errors import SearchError, SearchTimeout
from indexes.valkey_client import write
from indexes.valkey_servers import Command

CONNECTIONS: Final = 4
PIPELINE_BYTES: Final = 16 << 10
PIPELINE_COMMANDS: Final = 200
# Far more than an engine takes for so few hashes, far less than a lease.
PIPELINE_TIMEOUT_S: Final = 10.0
# Pipelines that wait for a connection.
QUEUED: Final = 2 * CONNECTIONS
BEAT_S: Final = 1.0
# Of each argument: its length and what the protocol puts around it, and half a field's name.
_OVERHEAD: Final = 16

_Keyed = tuple[bytes, Command]


def _nothing() -> None:
    """Do nothing while a write waits."""


class HashWriter:
    """Writes hashes from threads of its own, in no order; ``beat`` is called about once a second meanwhile.

    Use it as a context: leaving it by an error gives up what is not sent yet.
    """

    def __init__(
        self,
        *,
        beat: Callable[[], None] = _nothing,
        timeout_s: float = PIPELINE_TIMEOUT_S,
        pipeline_bytes: int = PIPELINE_BYTES,
    ) -> None:
        self._beat = beat
        self._timeout_s = timeout_s
        self._bytes = pipeline_bytes
        # Fewer after a pipeline has stalled, for as long as this writer lives.
        self._commands = PIPELINE_COMMANDS
        self._batch: list[_Keyed] = []
        self._size = 0
        self._stopped = Event()
        # One future a pipeline would cost as much as sending it.
        self._queue: Queue[list[_Keyed] | None] = Queue(QUEUED)
        self._state = Condition()
        self._unfinished = self._written = 0
        self._error: SearchError | None = None
        self._pool = ThreadPoolExecutor(CONNECTIONS, "valkey-write")
        self._threads = [self._pool.submit(self._run) for _ in range(CONNECTIONS)]

    def __enter__(self) -> HashWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._stopped.set()
        with suppress(Empty):
            while True:
                self._queue.get_nowait()
        for _thread in self._threads:
            self._queue.put(None)
        self._pool.shutdown()

    def put(self, key: bytes, mapping: Mapping[str, Any]) -> None:
        """Take a hash to be written, waiting while too many are under way. Raises SearchError."""
        command = ("HSET", key, *chain.from_iterable(mapping.items()))
        size = len(key) + _OVERHEAD * len(command)
        for value in mapping.values():
            size += 8 if isinstance(value, int | float) else len(value)
        full = self._size + size > self._bytes or len(self._batch) >= self._commands
        if self._batch and full:
            self._send()
        self._batch.append((key, command))
        self._size += size

    def flush(self) -> int:
        """Wait until all is written, and return how many hashes since the last time. Raises SearchError."""
        if self._batch:
            self._send()
        while True:
            with self._state:
                if not self._unfinished:
                    written, self._written = self._written, 0
                    return written
                if self._error is None:
                    self._state.wait(BEAT_S)
            self._look()

    def _send(self) -> None:
        with self._state:
            self._unfinished += 1
        while True:
            try:
                self._queue.put(self._batch, timeout=BEAT_S)
                break
            except Full:
                self._look()
        self._batch, self._size = [], 0

    def _look(self) -> None:
        """Raise what a thread has ended with."""
        self._beat()
        if self._error is not None:
            raise self._error
        for thread in self._threads:
            if thread.done():
                thread.result()

    def _run(self) -> None:
        while (batch := self._queue.get()) is not None:
            try:
                self._write(batch)
            except SearchError as error:
                with self._state:
                    self._error = error
                    self._state.notify()
                return
            with self._state:
                self._written += len(batch)
                self._unfinished -= 1
                self._state.notify()

    def _write(self, batch: list[_Keyed]) -> None:
        most = self._commands
        if len(batch) > most:
            for start in range(0, len(batch), most):
                self._write(batch[start : start + most])
            return
        try:
            write(lambda servers: servers.pipeline(batch), self._timeout_s, repeatable=True)
        except SearchTimeout:
            if len(batch) == 1 or self._stopped.is_set():
                raise
            self._commands = min(self._commands, len(batch) // 2)
            self._write(batch)
