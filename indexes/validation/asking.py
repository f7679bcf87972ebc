"""Texts asked of an endpoint the way shoppers' queries are, a few calls at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from indexes.embedding import embed_query
from indexes.errors import EmbeddingError
from indexes.given import Vector
from indexes.schema import EndpointSpec
from indexes.throttle import take_turn
from indexes.validation.bench import Bench

ATTEMPTS: Final = 3
PAUSE_S: Final = 0.5


def ask(
    bench: Bench, endpoint: EndpointSpec, texts: Sequence[str]
) -> list[Vector | EmbeddingError]:
    """Return the query vector of each text, or why the endpoint will never give one.

    Raises EmbeddingError where it does not answer for now.
    """
    answers: list[Vector | EmbeddingError] = []
    with ThreadPoolExecutor(endpoint.concurrency, "ask") as pool:
        for answer in pool.map(lambda text: _asked(endpoint, text), texts):
            answers.append(answer)
            bench.stay()
    return answers


def _asked(endpoint: EndpointSpec, text: str) -> Vector | EmbeddingError:
    for attempt in range(1, ATTEMPTS + 1):
        time.sleep(take_turn(endpoint))
        try:
            return embed_query(endpoint, text)
        except EmbeddingError as error:
            if not error.retryable:
                return error
            if attempt == ATTEMPTS:
                raise
        time.sleep(PAUSE_S * attempt)
    raise AssertionError("the last attempt returns or raises")
