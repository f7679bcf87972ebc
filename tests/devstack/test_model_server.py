"""The model server, as the real client of SageMaker's runtime sees it."""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import urllib3
from botocore.exceptions import ClientError

from recplatform.devstack.batching import Batcher
from recplatform.devstack.model import DIMENSION, SHORT_DIMENSION, MiniLM, Vectors
from recplatform.devstack.model_server import (
    DEFAULT_ENDPOINT_NAME,
    MAX_BODY_BYTES,
    SHORT_ENDPOINT_NAME,
)
from recplatform.devstack.ports import HOST
from tests.devstack.conftest import Served


def invoke(served: Served, body: bytes, endpoint: str = DEFAULT_ENDPOINT_NAME) -> Vectors:
    answer = served.client.invoke_endpoint(
        EndpointName=endpoint, ContentType="application/json", Body=body
    )
    assert answer["ContentType"] == "application/json"
    return np.array(json.loads(answer["Body"].read()), dtype=np.float32)


def embed(served: Served, inputs: object) -> Vectors:
    return invoke(served, json.dumps({"inputs": inputs}).encode())


@pytest.mark.parametrize(
    "text",
    ["gps watch", "", " ", "😀 watch 👩‍🚀", "Käse · ñandú · 時計", "a\u0000b", "word " * 20_000],
    ids=["words", "empty", "space", "emoji", "accents", "nul", "long"],
)
def test_one_text_gives_one_unit_vector(served: Served, text: str) -> None:
    vectors = embed(served, text)
    assert vectors.shape == (1, DIMENSION)
    assert np.linalg.norm(vectors) == pytest.approx(1, abs=1e-5)


def test_a_list_gives_the_vectors_of_its_texts_in_order(served: Served, model: MiniLM) -> None:
    texts = [f"product number {number} {'in black ' * (number % 5)}" for number in range(70)]
    np.testing.assert_allclose(embed(served, texts), model(texts), atol=1e-5)


def test_the_short_endpoint_answers_the_beginning_of_the_same_vectors(
    served: Served, model: MiniLM
) -> None:
    texts = ["gps watch", "smartwatch with satellite navigation", "black toner"]
    short = invoke(served, json.dumps({"inputs": texts}).encode(), SHORT_ENDPOINT_NAME)
    begin = model(texts)[:, :SHORT_DIMENSION]
    np.testing.assert_allclose(np.linalg.norm(short, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(short * np.linalg.norm(begin, axis=1)[:, None], begin, atol=1e-5)
    assert short[0] @ short[1] > short[0] @ short[2] + 0.3


def test_concurrent_callers_each_get_their_own_vector(served: Served, model: MiniLM) -> None:
    texts = [f"query {number}" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda text: embed(served, text)[0], texts))
    np.testing.assert_allclose(answers, model(texts), atol=1e-5)


def test_keys_beside_the_inputs_are_allowed(served: Served) -> None:
    body = b'{"inputs": "watch", "parameters": {"truncate": true}}'
    np.testing.assert_array_equal(invoke(served, body), embed(served, "watch"))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "not JSON"),
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"inputs": NaN}', "not JSON"),
        (b'{"inputs": "\\ud800"}', "not JSON"),
        (b"[]", "inputs"),
        (b"{}", "inputs"),
        (b'{"inputs": null}', "inputs"),
        (b'{"inputs": 5}', "inputs"),
        (b'{"inputs": []}', "inputs"),
        (b'{"inputs": ["a", 1]}', "inputs"),
        (b'{"inputs": [["a"]]}', "inputs"),
        (b'{"inputs": {"text": "a"}}', "inputs"),
        (b'{"inputs": "' + b"a" * MAX_BODY_BYTES + b'"}', str(MAX_BODY_BYTES)),
    ],
)
def test_a_wrong_body_is_a_validation_error(served: Served, body: bytes, says: str) -> None:
    with pytest.raises(served.client.exceptions.ValidationError) as caught:
        invoke(served, body)
    assert says in caught.value.response["Error"]["Message"]
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_an_unknown_endpoint_is_a_validation_error_that_names_it(served: Served) -> None:
    with pytest.raises(served.client.exceptions.ValidationError, match="nosuch"):
        invoke(served, b'{"inputs": "a"}', endpoint="nosuch")


def test_a_failing_model_is_a_model_error_with_its_message(
    serve: Callable[[Batcher], Served],
) -> None:
    def break_down(_: Sequence[str]) -> Vectors:
        raise RuntimeError("out of memory")

    served = serve(Batcher(break_down))
    with pytest.raises(served.client.exceptions.ModelError) as caught:
        embed(served, "a")
    answer: Mapping[str, Any] = caught.value.response
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert answer["OriginalStatusCode"] == 500
    assert answer["OriginalMessage"] == "out of memory"
    assert DEFAULT_ENDPOINT_NAME in answer["LogStreamArn"]


def test_a_full_queue_is_throttling(serve: Callable[[Batcher], Served]) -> None:
    busy, go_on = threading.Event(), threading.Event()

    def wait(texts: Sequence[str]) -> Vectors:
        busy.set()
        go_on.wait(10)
        return np.zeros((len(texts), 1), dtype=np.float32)

    batcher = Batcher(wait, capacity=1)
    served = serve(batcher)
    batcher.submit(["in work"])
    assert busy.wait(10)
    waiting = batcher.submit(["in the queue"])
    try:
        with pytest.raises(ClientError) as caught:
            embed(served, "one too many")
    finally:
        go_on.set()
    assert caught.value.response["Error"]["Code"] == "ThrottlingException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429
    waiting.result(10)
    assert embed(served, "room again").shape == (1, 1)


def test_it_answers_as_a_container_must(served: Served) -> None:
    url = f"http://{HOST}:{served.port}"
    assert urllib3.request("GET", f"{url}/ping").status == 200
    answer = urllib3.request("POST", f"{url}/invocations", json={"inputs": "watch"})
    np.testing.assert_allclose(answer.json(), embed(served, "watch"), atol=1e-6)


def test_errors_have_the_form_that_every_aws_client_reads(served: Served) -> None:
    answer = urllib3.request("POST", f"http://{HOST}:{served.port}/invocations", body=b"{")
    assert answer.status == 400
    assert answer.headers["x-amzn-ErrorType"] == "ValidationError"
    assert answer.headers["x-amzn-RequestId"]
    assert answer.json()["message"] == answer.json()["Message"]
