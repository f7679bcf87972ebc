"""Small indexes with items of a test's own, on the real engine."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from indexes import sagemaker, valkey
from indexes.commands import create_args
from indexes.naming import VECTOR_FIELD
from indexes.schema import CatalogSpec, EndpointSpec, FieldSpec, FieldType, IndexSpec, LiveIndex
from indexes.values import encode
from tests.indexes.containers import Container, answer

MakeIndex = Callable[..., LiveIndex]


def field(name: str, type: FieldType, **options: Any) -> FieldSpec:  # noqa: A002
    return FieldSpec(name=name, type=type, source=name, **options)


FIELDS = (
    field("title", FieldType.TEXT),
    field("brand", FieldType.TAG),
    field("category", FieldType.TAG, multiple=True),
    field("price", FieldType.NUMERIC),
    field("extra", FieldType.STORED),
)


def spec_of(fields: Iterable[FieldSpec] = FIELDS, *, dimension: int = 4, **options: Any):
    return IndexSpec(
        slug="things",
        endpoint=EndpointSpec(slug="test", endpoint_name="test", dimension=dimension),
        catalog=CatalogSpec(uri="/none.jsonl", text_template="{title}"),
        fields=tuple(fields),
        **options,
    )


def direction(degrees: float) -> np.ndarray:
    """A unit vector of four numbers; the angle between two is the difference of their degrees."""
    angle = np.radians(degrees)
    return np.array([np.cos(angle), np.sin(angle), 0, 0], dtype=np.float32)


@pytest.fixture
def make_index(namespace: str) -> Iterator[MakeIndex]:
    """A factory: writes ``{id: (vector, fields)}`` into a new index and waits until all are found."""
    made: list[LiveIndex] = []

    def make(
        items: Mapping[str, tuple[np.ndarray, Mapping[str, Any]]],
        fields: Iterable[FieldSpec] = FIELDS,
        stemmed: bool = False,
        **options: Any,
    ) -> LiveIndex:
        dimension = next((len(vector) for vector, _ in items.values()), 4)
        live = LiveIndex(
            label=f"things-v{len(made)}",
            index_name=f"{namespace}_i{len(made)}",
            key_prefix=f"{namespace}:i{len(made)}:",
            spec=spec_of(fields, dimension=dimension, **options),
        )
        made.append(live)
        if stemmed:
            args = create_args(live.index_name, live.key_prefix, live.spec)
            valkey.writer().execute_command(*(arg for arg in args if arg != "NOSTEM"))
        else:
            valkey.create_index(live.index_name, live.key_prefix, live.spec)
        valkey.write_hashes(
            (live.key_prefix + item_id, item_hash(live.spec, vector, values))
            for item_id, (vector, values) in items.items()
        )
        until = time.monotonic() + 10
        while not valkey.index_info(live.index_name).ready:
            assert time.monotonic() < until, "the engine did not finish"
            time.sleep(0.01)
        return live

    yield make
    for live in made:
        valkey.drop_index(live.index_name)
        valkey.delete_prefix(live.key_prefix)


def item_hash(spec: IndexSpec, vector: np.ndarray, values: Mapping[str, Any]) -> dict[str, bytes]:
    encoded = {field.name: encode(field, values.get(field.name)) for field in spec.fields}
    stored = {name: raw for name, raw in encoded.items() if raw is not None}
    return {VECTOR_FIELD: np.asarray(vector, dtype="<f4").tobytes(), **stored}


@pytest.fixture(scope="module")
def _container() -> Iterator[Container]:
    container = Container()
    container.start()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", container.url)
        environment.setenv("AWS_ACCESS_KEY_ID", "test")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "test")
        sagemaker.forget_clients()
        yield container
    container.stop()
    sagemaker.forget_clients()


@pytest.fixture
def container(_container: Container) -> Container:
    """An embedding container that stands where the SageMaker runtime would."""
    _container.calls.clear()
    _container.respond = lambda call: answer([])
    return _container


@pytest.fixture
def model(container: Container) -> Any:
    """A model that counts the texts it is asked for."""
    from tests.indexes.item_calls import Model

    return Model(container)


@pytest.fixture
def define(new_definition: Callable[..., Any]) -> Callable[..., Any]:
    """A factory of definitions to build with that model."""
    from tests.indexes.item_calls import ENDPOINT, FIELDS, TEMPLATE, row

    def make(rows: Any = None, **changes: Any) -> Any:
        given = {"endpoint": ENDPOINT, "fields": FIELDS, "text_template": TEMPLATE} | changes
        rows = [row(number) for number in range(1, 5)] if rows is None else rows
        source = {
            name: given.pop(name) for name in ("version_field", "vector_field") if name in given
        }
        definition = new_definition(rows, **given)
        for name, value in source.items():
            setattr(definition.source, name, value)
        definition.source.save()
        return definition

    return make
