"""What tests of changed items share: a model that counts its texts, and an index over it."""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from indexes import builds, valkey
from indexes.models import IndexBuild, IndexDefinition
from indexes.schema import EndpointSpec
from tests.indexes.containers import Answer, Call, Container, answer

DIMENSION = 8
ENDPOINT = EndpointSpec(slug="counted", endpoint_name="counted", dimension=DIMENSION)
FIELDS: tuple[dict[str, Any], ...] = (
    {"name": "title", "type": "text"},
    {"name": "brand", "type": "tag"},
    {"name": "price", "type": "numeric"},
    {"name": "extra", "type": "stored", "source_path": "attributes.extra"},
)
TEMPLATE = "{title}"


class Model:
    """Answers a vector that depends on the text alone, and remembers what it was sent."""

    def __init__(self, container: Container, dimension: int = DIMENSION) -> None:
        self._container = container
        self.dimension = dimension
        self.refused: set[str] = set()
        self.down = False
        container.respond = self._respond

    @property
    def texts(self) -> list[str]:
        """Every text it was asked for, in order."""
        return [text for call in self._container.calls for text in _texts(call)]

    def forget(self) -> None:
        self._container.calls.clear()

    def _respond(self, call: Call) -> Answer:
        if self.down:
            return answer({"message": "down"}, 503)
        texts = _texts(call)
        if self.refused & set(texts):
            body = {"OriginalStatusCode": 400, "OriginalMessage": "no", "Message": "no"}
            return answer(body, 424, **{"x-amzn-ErrorType": "ModelError"})
        dimension = 16 if call.path.startswith("/endpoints/other") else self.dimension
        return answer([vector_of(text, dimension).tolist() for text in texts])


def _texts(call: Call) -> list[str]:
    given = call.body["inputs"]
    return [given] if isinstance(given, str) else list(given)


def vector_of(text: str, dimension: int = DIMENSION) -> np.ndarray:
    """The unit vector of a text."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
    vector = np.random.default_rng(seed).normal(size=dimension).astype(np.float32)
    return vector / np.linalg.norm(vector)


def row(number: int, **changes: Any) -> dict[str, Any]:
    """A row of the catalog."""
    return {
        "id": f"i{number}",
        "title": f"Thing {number}",
        "brand": "Acme",
        "price": number,
    } | changes


def build_live(definition: IndexDefinition) -> IndexBuild:
    """Build the definition here, up to live."""
    build = builds.start(definition)
    builds.run_to_end(build.pk)
    build.refresh_from_db()
    assert build.status == IndexBuild.Status.LIVE, (build.status, build.error, build.notice)
    return build


def held(build: IndexBuild, item_id: str, *fields: str) -> list[str | None]:
    """The fields of an item's hash as text."""
    [found] = valkey.hash_fields([build.key_prefix + item_id], fields, fresh=True)
    return [None if raw is None else raw.decode(errors="replace") for raw in found]


def vector_held(build: IndexBuild, item_id: str) -> np.ndarray:
    """The vector of an item's hash."""
    [[raw]] = valkey.hash_fields([build.key_prefix + item_id], ["rp_vector"], fresh=True)
    assert raw is not None
    return np.frombuffer(raw, "<f4")


def codes(refused: Iterable[Any]) -> dict[int, str]:
    """Refusals by their place in the call."""
    return {refusal.position: refusal.code for refusal in refused}


def counted(build: IndexBuild) -> tuple[int, int]:
    """The number of items the build says it has, and that of the engine."""
    build.refresh_from_db()
    return build.written, valkey.index_info(build.index_name).num_docs
