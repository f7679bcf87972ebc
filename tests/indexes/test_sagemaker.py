"""The SageMaker module against an HTTP server that behaves and misbehaves as endpoints do."""

import threading
import time

import pytest

from indexes import sagemaker
from indexes.errors import (
    EmbeddingError,
    EmbeddingRejected,
    EmbeddingThrottled,
    EmbeddingTimeout,
    EmbeddingUnavailable,
)
from indexes.schema import EndpointSpec
from tests.indexes.containers import Container, answer, refusal

ENDPOINT = EndpointSpec(
    slug="titles", endpoint_name="titles-v2", region="eu-west-1", dimension=3, timeout_ms=2000
)


def test_a_call_is_what_sagemaker_takes(container: Container):
    container.respond = lambda call: answer([[1, 2, 3]])
    assert sagemaker.invoke(ENDPOINT, b'{"inputs": "x"}') == b"[[1, 2, 3]]"
    [call] = container.calls
    assert call.path == "/endpoints/titles-v2/invocations"
    assert call.body == {"inputs": "x"}
    assert call.headers["Content-Type"] == "application/json"
    assert "/eu-west-1/sagemaker/aws4_request" in call.headers["Authorization"]


def test_an_endpoint_without_a_region_is_called_in_that_of_the_installation(
    container: Container, settings
):
    settings.AWS_REGION = "ap-south-1"
    sagemaker.invoke(ENDPOINT.model_copy(update={"region": ""}), b"{}")
    assert "/ap-south-1/" in container.calls[0].headers["Authorization"]


MODEL = {"OriginalStatusCode": 500, "OriginalMessage": "CUDA out of memory"}


@pytest.mark.parametrize(
    ("given", "expected", "said"),
    [
        (refusal(400, "ValidationError", "Endpoint titles-v2 of account 1 not found."),
         EmbeddingRejected, r"titles-v2.*not found.*name and region"),
        (refusal(403, "AccessDeniedException", "User is not authorized"),
         EmbeddingRejected, r"not authorized.*sagemaker:InvokeEndpoint"),
        (refusal(403, "ExpiredTokenException", "The security token is expired"),
         EmbeddingRejected, r"expired.*credentials"),
        (refusal(429, "ThrottlingException", "Rate exceeded"), EmbeddingThrottled, "Rate exceeded"),
        (refusal(400, "ThrottlingException", "Rate exceeded"), EmbeddingThrottled, "Rate exceeded"),
        (refusal(503, "ServiceUnavailable", "try later"), EmbeddingUnavailable, "try later"),
        (refusal(500, "InternalFailure", "oops"), EmbeddingUnavailable, "oops"),
        (refusal(429, "ModelNotReadyException", "loading"), EmbeddingThrottled, "loading"),
        (refusal(424, "ModelError", "Received server error", **MODEL),
         EmbeddingUnavailable, "failed .500.: CUDA out of memory"),
        (refusal(424, "ModelError", "x", OriginalStatusCode=400, OriginalMessage="no 'inputs'"),
         EmbeddingRejected, r"refused the request \(400\): no 'inputs'.*request key"),
        (refusal(424, "ModelError", "x", OriginalStatusCode=429, OriginalMessage="overloaded"),
         EmbeddingThrottled, "busy: overloaded"),
        (refusal(424, "ModelError", "only this"), EmbeddingUnavailable, "only this"),
        (answer(b"<html>bad gateway</html>", 502), EmbeddingUnavailable, "502"),
        (answer(b"", 404), EmbeddingRejected, "titles-v2"),
        (None, EmbeddingUnavailable, "cannot be reached"),
    ],
)  # fmt: skip
def test_errors_carry_the_decision_and_the_words_of_aws(
    container: Container, given, expected, said
):
    container.respond = lambda call: given
    with pytest.raises(EmbeddingError, match=said) as caught:
        sagemaker.invoke(ENDPOINT, b"{}")
    assert type(caught.value) is expected
    assert "titles" in str(caught.value)
    # No call is retried here.
    assert len(container.calls) == 1


def test_a_slow_endpoint_costs_no_more_than_the_time_given(container: Container):
    done = threading.Event()

    def wait(call):
        done.wait(5)
        return answer([])

    container.respond = wait
    started = time.monotonic()
    for limit in (0.05, 0.1):
        with pytest.raises(EmbeddingTimeout):
            sagemaker.invoke(ENDPOINT, b"{}", timeout_s=limit)
    with pytest.raises(EmbeddingTimeout):
        sagemaker.invoke(ENDPOINT.model_copy(update={"timeout_ms": 100}), b"{}")
    assert time.monotonic() - started < 1.5
    done.set()


@pytest.mark.parametrize("limit", [0, -1])
def test_no_time_is_a_timeout_without_a_call(container: Container, limit):
    with pytest.raises(EmbeddingTimeout):
        sagemaker.invoke(ENDPOINT, b"{}", timeout_s=limit)
    assert container.calls == []


def test_an_endpoint_that_is_away(container: Container):
    sagemaker.invoke(ENDPOINT, b"{}")
    container.stop()
    try:
        for _ in range(2):
            with pytest.raises(EmbeddingUnavailable, match="cannot be reached"):
                sagemaker.invoke(ENDPOINT, b"{}")
    finally:
        container.start()
    assert sagemaker.invoke(ENDPOINT, b"{}") == b"[]"


def test_a_restart_breaks_at_most_one_call(container: Container):
    meeting = threading.Barrier(8)

    def meet(call):
        meeting.wait(5)
        return answer([1])

    # Eight at once leave eight connections in the pool.
    container.respond = meet
    threads = [threading.Thread(target=sagemaker.invoke, args=(ENDPOINT, b"{}")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(container.calls) == 8
    container.stop()
    container.respond = lambda call: answer([2])
    container.start()
    failures = 0
    for _ in range(10):
        try:
            assert sagemaker.invoke(ENDPOINT, b"{}") == b"[2]"
        except EmbeddingUnavailable:
            failures += 1
    assert failures <= 1


def test_many_threads_may_make_the_first_call(container: Container):
    container.respond = lambda call: answer([1])
    answers: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: answers.append(sagemaker.invoke(ENDPOINT, b"{}")))
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [b"[1]"] * 12


def test_without_credentials_the_message_says_what_to_set(
    container: Container, monkeypatch: pytest.MonkeyPatch, tmp_path
):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    sagemaker.forget_clients()
    with pytest.raises(EmbeddingRejected, match="AWS_ACCESS_KEY_ID"):
        sagemaker.invoke(ENDPOINT, b"{}")
    sagemaker.forget_clients()


def test_without_a_region_the_message_says_what_to_set(container: Container, settings):
    settings.AWS_REGION = ""
    nowhere = ENDPOINT.model_copy(update={"region": ""})
    with pytest.raises(EmbeddingRejected, match="AWS_REGION"):
        sagemaker.invoke(nowhere, b"{}")


def test_an_address_that_is_none_names_its_setting(
    container: Container, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", "localhost:8080")
    with pytest.raises(EmbeddingRejected, match="AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME"):
        sagemaker.invoke(ENDPOINT.model_copy(update={"region": "eu-north-1"}), b"{}")


def test_a_region_that_is_none_is_refused(container: Container):
    with pytest.raises(EmbeddingRejected, match="region"):
        sagemaker.invoke(ENDPOINT.model_copy(update={"region": "no such region!"}), b"{}")


@pytest.mark.parametrize("name", ["", "with space", "a/b"])
def test_a_name_that_no_endpoint_can_have_is_refused(container: Container, name):
    container.respond = lambda call: refusal(400, "ValidationError", "not found")
    with pytest.raises(EmbeddingRejected):
        sagemaker.invoke(ENDPOINT.model_copy(update={"endpoint_name": name}), b"{}")
