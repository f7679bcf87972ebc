"""Frozen specs of enrichment sources, as published with a surface. No I/O, no ORM."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class SignalKind(StrEnum):
    NUMBER = "number"
    WEIGHTS = "weights"


class Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class SignalSpec(Spec):
    """A named number or weight map, and the attribute it is read from."""

    name: str
    attribute: str
    kind: SignalKind = SignalKind.WEIGHTS


class SourceSpec(Spec):
    """A DynamoDB table and how a request finds its item there."""

    slug: str
    table: str
    region: str = ""
    partition_key: str = "pk"
    key_template: str
    sort_key: str = ""
    sort_key_template: str = ""
    timeout_ms: int = 50
    required: bool = False
    signals: tuple[SignalSpec, ...] = ()
