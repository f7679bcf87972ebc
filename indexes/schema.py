"""Frozen specs of endpoints, catalogs and indexes: what a build is made from, and what serving reads.

They are values without I/O: stored as JSON on a build, sent to web processes
in the serving snapshot, and the only place that knows the legal types and bounds.
"""

import json
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

# Embedded once a build; its vector is kept as ``probe``.
PROBE_TEXT = "A red cotton summer dress, size M, with short sleeves."


class FieldType(StrEnum):
    TAG = "tag"
    NUMERIC = "numeric"
    TEXT = "text"
    STORED = "stored"


class Spec(BaseModel):
    """A frozen value that survives a trip through JSON."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class EndpointSpec(Spec):
    """How to turn text into vectors at one SageMaker endpoint."""

    slug: str
    endpoint_name: str
    region: str = ""
    model: str = ""
    dimension: int = Field(ge=1, le=32768)
    request_key: str = "inputs"
    request_extra: dict[str, Any] = {}
    response_key: str = ""
    timeout_ms: int = 2000
    max_batch: int = 32
    concurrency: int = 2
    max_calls_per_second: float = 0
    normalize: bool = True
    query_prefix: str = ""
    passage_prefix: str = ""
    batch_model: str = ""
    batch_s3_uri: str = ""
    batch_instance_type: str = ""
    batch_instance_count: int = 1

    @property
    def fingerprint(self) -> str:
        """Return what differs whenever the same text may give another vector: 16 hex digits."""
        parts = {name: getattr(self, name) for name in _MODEL_PARTS}
        text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
        return blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest()


# Of an endpoint, what its vectors depend on.
_MODEL_PARTS = (
    "endpoint_name",
    "region",
    "model",
    "dimension",
    "request_extra",
    "response_key",
    "normalize",
    "query_prefix",
    "passage_prefix",
)


class CatalogSpec(Spec):
    """Where items are read from and how a row becomes an item."""

    uri: str
    format: Literal["auto", "jsonl", "csv", "parquet"] = "auto"
    id_field: str = "id"
    text_template: str
    vector_field: str = ""
    version_field: str = ""


class FieldSpec(Spec):
    """One item field: its type in the index and where a row holds it."""

    name: str
    type: FieldType
    source: str
    separator: str = "|"
    multiple: bool = False
    returned: bool = True


class IndexSpec(Spec):
    """Everything a build is made from, frozen when the build starts."""

    slug: str
    endpoint: EndpointSpec
    catalog: CatalogSpec
    embed_with: Literal["realtime", "batch"] = "realtime"
    metric: Literal["COSINE", "L2", "IP"] = "COSINE"
    algorithm: Literal["HNSW", "FLAT"] = "HNSW"
    m: int = Field(16, ge=2, le=512)
    ef_construction: int = Field(200, ge=1, le=4096)
    ef_runtime: int = Field(100, ge=1, le=4096)
    fields: tuple[FieldSpec, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Return what a query must share with a build: the endpoint's fingerprint and the metric."""
        return f"{self.endpoint.fingerprint}-{self.metric.lower()}"

    def field(self, name: str) -> FieldSpec | None:
        """Return the field of that name, or None."""
        return next((field for field in self.fields if field.name == name), None)


class LiveIndex(Spec):
    """A build that can be searched: its physical names and the spec it was made from.

    ``fingerprint`` is the spec's as it was frozen when the build began; empty where none was.
    ``probe`` is the vector of ``PROBE_TEXT`` when it was built, as base64 of FLOAT32; empty
    where none was made. An endpoint that answers another one today has another model.
    """

    label: str
    index_name: str
    key_prefix: str
    spec: IndexSpec
    fingerprint: str = ""
    probe: str = ""
