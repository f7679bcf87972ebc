"""Products, and a model that embeds texts by their words."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from indexes.schema import PROBE_TEXT, EndpointSpec
from tests.indexes.containers import Answer, Call, answer

DIMENSION = 16
ENDPOINT = EndpointSpec(slug="words", endpoint_name="words", dimension=DIMENSION)
FIELDS = [{"name": "title", "type": "text"}, {"name": "kind", "type": "tag"}]
KINDS = ("boots", "jacket", "lamp", "kettle", "tent", "watch")
COLOURS = ("red", "blue", "green", "black", "white", "yellow", "brown")


def rows(count: int) -> list[dict[str, Any]]:
    """Products with different texts, of which some are alike."""
    return [
        {
            "id": f"p{number}",
            "title": f"{COLOURS[number % 7]} {KINDS[number % 6]} number {number}",
            "kind": KINDS[number % 6],
        }
        for number in range(count)
    ]


def meaning(text: str, salt: str = "") -> np.ndarray:
    """A direction that texts with the same words share."""
    total = np.zeros(DIMENSION)
    for word in text.lower().split():
        seed = int.from_bytes(hashlib.blake2b(f"{salt}{word}".encode(), digest_size=4).digest())
        total += np.random.default_rng(seed).standard_normal(DIMENSION)
    return total


def texts_of(calls: Sequence[Call]) -> list[str]:
    """The texts of calls, without that of the probe."""
    sent = [call.body["inputs"] for call in calls]
    flat = [text for texts in sent for text in ([texts] if isinstance(texts, str) else texts)]
    return [text for text in flat if text != PROBE_TEXT]


def embedder(embed: Callable[[str], np.ndarray] = meaning) -> Callable[[Call], Answer]:
    def respond(call: Call) -> Answer:
        texts = call.body["inputs"]
        texts = [texts] if isinstance(texts, str) else texts
        return answer([embed(text).tolist() for text in texts])

    return respond
