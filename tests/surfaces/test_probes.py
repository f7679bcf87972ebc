"""Checks of the models behind endpoints: what is refused, healed, asked again and left alone."""

import threading
import time
from base64 import b64encode

import numpy as np
import pytest
from structlog.testing import capture_logs

from indexes import sagemaker
from indexes.errors import EmbeddingContract, EmbeddingOtherModel, EmbeddingTimeout
from indexes.probe import check_model
from indexes.schema import PROBE_TEXT, EndpointSpec, LiveIndex
from surfaces import wiring
from surfaces.plan import Plan
from surfaces.probes import AGAIN_S, RETRY_S, Probes
from tests.fakes.embedder import vector_of
from tests.fakes.index import FakeIndex
from tests.indexes.containers import Container, answer
from tests.surfaces.builders import PRODUCTS, Fakes, index_spec, plan


def probe_of(*numbers: float) -> str:
    return b64encode(np.array(numbers, dtype="<f4").tobytes()).decode()


def probed(label: str = "products-v1", probe: str = "cHJvYmU=", deadline_ms: int = 5000) -> Plan:
    live = LiveIndex(label=label, index_name="x", key_prefix="x:", spec=index_spec(), probe=probe)
    return plan(index=live, deadline_ms=deadline_ms)


class Checks:
    """A check whose outcome a test sets, and a clock that it turns."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.asked: list[str] = []
        self.now = 0.0
        self.probes = Probes(self._check, lambda: self.now)

    def _check(self, index: LiveIndex, endpoint: EndpointSpec) -> None:
        self.asked.append(f"{index.label} {endpoint.timeout_ms}")
        if self.error is not None:
            raise self.error

    def after(self, seconds: float, *plans: Plan) -> list[str]:
        """Let time pass, begin what is due, and return what was asked."""
        self.now += seconds
        self.asked.clear()
        for thread in self.probes.begin(plans):
            thread.join(5)
        return list(self.asked)


@pytest.mark.unit
class TestProbes:
    def test_each_model_is_asked_once_a_minute(self):
        checks = Checks()
        one, other = probed(), probed("products-v2", probe="b3RoZXI=")
        assert checks.after(0, one, one, other) == ["products-v1 2000", "products-v2 2000"]
        assert checks.after(AGAIN_S / 2, one, other) == []
        assert len(checks.after(AGAIN_S / 2, one, other)) == 2

    def test_each_time_limit_has_its_connection(self):
        checks = Checks()
        asked = checks.after(0, probed(deadline_ms=100), probed(deadline_ms=500))
        assert asked == ["products-v1 100", "products-v1 500"]

    def test_an_index_without_a_probe_is_asked_until_the_connection_is_open(self):
        checks = Checks()
        checks.error = EmbeddingTimeout("slow")
        assert len(checks.after(0, probed(probe=""))) == 1
        checks.error = None
        assert len(checks.after(RETRY_S, probed(probe=""))) == 1
        assert checks.after(100 * AGAIN_S, probed(probe="")) == []

    def test_another_model_is_refused_until_it_is_put_back(self):
        checks = Checks()
        with capture_logs() as logs:
            checks.error = EmbeddingOtherModel("other")
            checks.after(0, probed())
            assert probed().model in checks.probes.refused
            assert probed("products-v2", probe="b3RoZXI=").model not in checks.probes.refused
            checks.after(AGAIN_S, probed())
            checks.error = None
            checks.after(AGAIN_S, probed())
            assert checks.probes.refused == {}
        assert [line["event"] for line in logs] == [
            "endpoint has another model",
            "endpoint has its model again",
        ]

    @pytest.mark.parametrize("error", [EmbeddingTimeout("slow"), EmbeddingContract("odd")])
    def test_no_answer_changes_nothing_and_is_asked_again_soon(self, error):
        checks = Checks()
        with capture_logs() as logs:
            checks.error = EmbeddingOtherModel("other")
            checks.after(0, probed())
            checks.error = error
            assert checks.after(AGAIN_S, probed()) == ["products-v1 2000"]
            assert probed().model in checks.probes.refused
            assert checks.after(RETRY_S / 2, probed()) == []
            assert len(checks.after(RETRY_S / 2, probed())) == 1
        # Said once, however long it lasts.
        assert [line["event"] for line in logs][1:] == ["endpoint not checked"]

    def test_a_check_that_hangs_is_not_begun_again(self):
        gate = threading.Event()
        asked: list[int] = []

        def hang(index: LiveIndex, endpoint: EndpointSpec) -> None:
            asked.append(1)
            gate.wait(10)

        now = [0.0]
        probes = Probes(hang, lambda: now[0])
        first = probes.begin([probed()])
        now[0] += 10 * AGAIN_S
        assert probes.begin([probed()]) == first
        gate.set()
        first[0].join(5)
        assert asked == [1]


@pytest.mark.unit
class TestRefusedPlans:
    """What a surface answers whose endpoint has another model than its index."""

    @pytest.fixture
    def fakes(self) -> Fakes:
        fakes = Fakes()
        fakes.refused = {probed().model: EmbeddingOtherModel("other")}
        return fakes

    def test_a_query_gets_the_fallback(self, fakes):
        response = fakes.ask(probed(), query="shoes")
        assert response.fallback.reason == "embed:other_model"
        assert fakes.embedder.texts == []
        # Of another build with the same endpoint, the vectors are what they were.
        assert fakes.ask(probed("v2", probe="b3RoZXI="), query="shoes").fallback is None

    def test_items_lead_to_items_still(self, fakes):
        response = fakes.ask(probed(), item_ids=["s1"])
        assert (response.fallback, response.degraded) == (None, [])
        both = fakes.ask(probed(), query="shoes", item_ids=["s1"])
        assert [(d.stage, d.reason) for d in both.degraded] == [("embed", "other_model")]
        assert both.items


VECTOR = (0.6, 0.8, 0.0)
ENDPOINT = EndpointSpec(
    slug="container", endpoint_name="container", region="probe-1", dimension=3,
    query_prefix="query: ", passage_prefix="passage: ", timeout_ms=2000,
)  # fmt: skip


class Fixed(Container):
    """Answers ``vector`` to every text."""

    def __init__(self) -> None:
        super().__init__()
        self.vector = list(VECTOR)
        self.respond = lambda call: answer([self.vector])


@pytest.fixture
def container(monkeypatch):
    container = Fixed()
    container.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", container.url)
    sagemaker.forget_clients()
    yield container
    container.stop()
    sagemaker.forget_clients()


def built_with(probe: str, **changes) -> LiveIndex:
    spec = index_spec(endpoint=ENDPOINT.model_copy(update=changes))
    return LiveIndex(label="products-v1", index_name="x", key_prefix="x:", spec=spec, probe=probe)


class TestCheck:
    def test_it_embeds_the_probe_as_an_item(self, container):
        check_model(built_with(probe_of(*VECTOR)), ENDPOINT)
        assert [call.body for call in container.calls] == [{"inputs": f"passage: {PROBE_TEXT}"}]

    @pytest.mark.parametrize(
        "vector",
        [VECTOR, (0.62, 0.79, 0.01), (6.0, 8.0, 0.0)],
        ids=["the same", "rounded otherwise", "longer"],
    )
    def test_the_same_model_passes(self, container, vector):
        container.vector = list(vector)
        for normalize in (True, False):
            live = built_with(probe_of(*VECTOR), normalize=normalize)
            check_model(live, live.spec.endpoint)

    @pytest.mark.parametrize(
        "vector",
        [(0.0, 0.6, 0.8), (-0.6, -0.8, 0.0), (0.0, 0.0, 0.0)],
        ids=["another", "opposite", "nothing"],
    )
    def test_another_model_does_not(self, container, vector):
        container.vector = list(vector)
        with pytest.raises(EmbeddingOtherModel, match=r"than when products-v1 was built \(cosine"):
            check_model(built_with(probe_of(*VECTOR)), ENDPOINT)

    def test_another_dimension_cannot_be_read(self, container):
        container.vector = [1.0, 0.0]
        with pytest.raises(EmbeddingContract):
            check_model(built_with(probe_of(*VECTOR)), ENDPOINT)

    def test_without_a_probe_every_answer_passes(self, container):
        check_model(built_with(""), ENDPOINT)
        assert len(container.calls) == 1


def test_a_model_that_changes_behind_its_name_is_noticed_and_heals(container, monkeypatch):
    """The container answers other vectors under the same name, and then the old ones again."""
    live = built_with(probe_of(*VECTOR))
    served = plan(index=live, deadline_ms=2000)
    wiring._probes.cache_clear()
    wiring._stages.cache_clear()
    monkeypatch.setattr("surfaces.probes.AGAIN_S", 0.0)
    fakes = Fakes()
    fakes.index = FakeIndex({"s1": (vector_of("shoes", 3), PRODUCTS["s1"])})
    fakes.refused = wiring.stages().refused

    wiring.warm([served], timeout_s=5)
    assert wiring.recheck([served]) == {}
    assert fakes.ask(served, query="shoes").fallback is None

    container.vector = [0.0, 0.6, 0.8]
    _until(lambda: wiring.recheck([served]))
    [(slug, problem)] = wiring.recheck([served]).items()
    assert slug == "shelf"
    assert 'endpoint "container" answers other vectors than when products-v1 was built' in problem
    fallback = fakes.ask(served, query="shoes").fallback
    assert fallback
    assert fallback.reason == "embed:other_model"

    container.vector = list(VECTOR)
    _until(lambda: not wiring.recheck([served]))
    assert fakes.ask(served, query="shoes").fallback is None


def _until(condition) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)
