"""Joins the texts of concurrent callers into batches for one model."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from recplatform.devstack.model import Vectors

Embed = Callable[[Sequence[str]], Vectors]


class QueueFull(Exception):
    """More texts wait than the queue holds."""


@dataclass(slots=True, eq=False)
class Job:
    """The texts of one caller, the longest first, and how far the work on them is."""

    texts: Sequence[str]
    done: "Future[Vectors]" = field(default_factory=Future)
    vectors: list[Vectors] = field(default_factory=list)
    order: list[int] = field(init=False)
    taken: int = 0

    def __post_init__(self) -> None:
        # Texts of one length share a batch, so that little is spent on padding.
        self.order = sorted(range(len(self.texts)), key=lambda i: -len(self.texts[i]))

    def take(self, most: int) -> list[str]:
        chosen = self.order[self.taken : self.taken + most]
        self.taken += len(chosen)
        return [self.texts[i] for i in chosen]

    def give(self, vectors: Vectors) -> None:
        self.vectors.append(vectors)
        if sum(map(len, self.vectors)) == len(self.texts):
            rows = np.empty((len(self.texts), vectors.shape[1]), dtype=np.float32)
            rows[self.order] = np.concatenate(self.vectors)
            self.done.set_result(rows)


class Batcher:
    """One thread that embeds what has gathered while it was busy.

    An idle model starts at once. Callers take turns in shares of a batch, so a
    query does not wait for the end of a long list.
    """

    def __init__(
        self, embed: Embed, *, batch: int = 32, share: int = 16, capacity: int = 512
    ) -> None:
        self._embed = embed
        self._batch = batch
        self._share = share
        self._capacity = capacity
        self._jobs: deque[Job] = deque()
        self._waiting = 0
        self._arrived = threading.Condition()
        threading.Thread(target=self._work, name="model", daemon=True).start()

    def submit(self, texts: Sequence[str]) -> "Future[Vectors]":
        """Queue the texts; raise QueueFull. An idle model takes a list of any length."""
        job = Job(texts)
        with self._arrived:
            if self._waiting and self._waiting + len(texts) > self._capacity:
                raise QueueFull
            self._waiting += len(texts)
            self._jobs.append(job)
            self._arrived.notify()
        return job.done

    def _work(self) -> None:
        while True:
            shares = self._next_shares()
            texts = [text for _, part in shares for text in part]
            try:
                vectors = self._embed(texts)
            except Exception as exc:  # noqa: BLE001  (whatever the model raises belongs to its callers)
                self._fail({job for job, _ in shares}, exc)
                continue
            start = 0
            for job, part in shares:
                job.give(vectors[start : start + len(part)])
                start += len(part)

    def _next_shares(self) -> list[tuple[Job, list[str]]]:
        with self._arrived:
            self._arrived.wait_for(lambda: self._jobs)
            shares: list[tuple[Job, list[str]]] = []
            room = self._batch
            while room and self._jobs:
                job = self._jobs.popleft()
                part = job.take(min(room, self._share))
                shares.append((job, part))
                room -= len(part)
                if job.taken < len(job.texts):
                    self._jobs.append(job)
            self._waiting -= self._batch - room
            return shares

    def _fail(self, jobs: set[Job], error: Exception) -> None:
        with self._arrived:
            for job in jobs:
                if job in self._jobs:
                    self._jobs.remove(job)
                    self._waiting -= len(job.texts) - job.taken
        for job in jobs:
            job.done.set_exception(error)
