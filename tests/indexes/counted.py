"""A model of a test's own behind a container: it counts the texts that it is asked for."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from indexes.schema import EndpointSpec
from tests.indexes.containers import Call, Container, answer

ENDPOINT = EndpointSpec(slug="counted", endpoint_name="counted", dimension=16, max_batch=32)


class Counted:
    """A random direction for each text, always the same one; ``before`` is called with each batch."""

    def __init__(
        self, container: Container, before: Callable[[list[str]], None] = lambda texts: None
    ) -> None:
        self.container = container
        self.texts: list[str] = []
        self._before = before
        self._lock = threading.Lock()
        container.respond = self._answer

    def _answer(self, call: Call) -> Any:
        texts = call.body["inputs"]
        texts = [texts] if isinstance(texts, str) else texts
        self._before(texts)
        with self._lock:
            self.texts += texts
        return answer([self.vector(text) for text in texts])

    def vector(self, text: str) -> list[float]:
        random = np.random.default_rng(list(text.encode()))
        return [float(number) for number in random.standard_normal(ENDPOINT.dimension)]
