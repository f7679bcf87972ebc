"""What SageMaker's control API says, in our errors with the next step."""

import pytest

from indexes import sagemaker_jobs
from indexes.errors import (
    EmbeddingError,
    EmbeddingRejected,
    EmbeddingThrottled,
    EmbeddingUnavailable,
)
from indexes.sagemaker_jobs import JobState
from indexes.schema import EndpointSpec
from tests.indexes.containers import Answer, Call, Container, answer
from tests.indexes.transform_jobs import refused

ENDPOINT = EndpointSpec(
    slug="e",
    endpoint_name="e",
    dimension=4,
    region="eu-west-1",
    concurrency=500,
    batch_model="my-model",
    batch_instance_type="ml.new.type",
)


@pytest.fixture
def api(monkeypatch):
    """A control API that answers what the test sets."""
    container = Container()
    container.start()
    for name, value in {
        "AWS_ENDPOINT_URL_SAGEMAKER": container.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    sagemaker_jobs._client.cache_clear()
    yield container
    sagemaker_jobs._client.cache_clear()
    container.stop()


def create() -> bool:
    return sagemaker_jobs.create(ENDPOINT, "job", source="s3://b/in/", target="s3://b/out")


def describe() -> JobState | None:
    return sagemaker_jobs.state("eu-west-1", "job")


def stop() -> None:
    sagemaker_jobs.stop("eu-west-1", "job")


def test_a_job_takes_what_the_endpoint_says(api):
    api.respond = lambda call: answer({"TransformJobArn": "arn"})
    assert create() is True
    [call] = api.calls
    assert call.body["ModelName"] == "my-model"
    assert call.body["TransformResources"]["InstanceType"] == "ml.new.type"
    # 100 MB for all records under way.
    assert call.body["MaxConcurrentTransforms"] * call.body["MaxPayloadInMB"] <= 100
    assert "/eu-west-1/sagemaker/" in call.headers["Authorization"]


def test_a_job_of_that_name_was_created_before(api):
    api.respond = lambda call: refused("ResourceInUse", "already exists")
    assert create() is False


@pytest.mark.parametrize(
    "unknown",
    [
        refused("ValidationException", "Could not find requested job with name: job"),
        refused("ResourceNotFound", "no such job"),
    ],
)
def test_a_job_that_is_not_known_is_none(api, unknown):
    api.respond = lambda call: unknown
    assert describe() is None
    stop()


def test_a_job_that_has_ended_cannot_be_stopped_and_need_not_be(api):
    api.respond = lambda call: refused("ValidationException", "The job is in status Completed.")
    stop()


def test_state_and_reason(api):
    api.respond = lambda call: answer({"TransformJobStatus": "Failed", "FailureReason": "Why"})
    assert describe() == JobState("Failed", "Why")
    api.respond = lambda call: answer({"TransformJobStatus": "Stopping"})
    state = describe()
    assert state is not None
    assert state.running


ERRORS: list[tuple[Answer, type[EmbeddingError], str]] = [
    (refused("ThrottlingException", "Rate exceeded"), EmbeddingThrottled, "Rate exceeded"),
    (refused("InternalFailure", "oops", 500), EmbeddingUnavailable, "oops"),
    (refused("ServiceUnavailable", "down", 503), EmbeddingUnavailable, "down"),
    (refused("AccessDeniedException", "not you"), EmbeddingRejected, "Allow the worker's role"),
    (refused("UnrecognizedClientException", "who", 403), EmbeddingRejected, "Allow the worker's"),
    (refused("ResourceLimitExceeded", "limit is 0"), EmbeddingRejected, "limit is 0 Ask AWS for"),
    (
        refused("ValidationException", 'Could not find model "my-model".'),
        EmbeddingRejected,
        "Check the model, the instance type and the working folder",
    ),
]


@pytest.mark.parametrize(("given", "kind", "said"), ERRORS)
def test_a_refusal_says_what_to_do(api, given, kind, said):
    api.respond = lambda call: given
    with pytest.raises(kind, match=said) as caught:
        create()
    assert caught.value.retryable is (kind is not EmbeddingRejected)


@pytest.mark.parametrize(
    ("call", "action"),
    [
        (create, "sagemaker:CreateTransformJob"),
        (describe, "sagemaker:DescribeTransformJob"),
        (stop, "sagemaker:StopTransformJob"),
    ],
)
def test_a_missing_permission_is_named(api, call, action):
    api.respond = lambda call: refused("AccessDeniedException", "not you")
    with pytest.raises(EmbeddingRejected, match=action):
        call()


def test_an_address_that_nobody_answers_is_for_later(api):
    api.stop()
    with pytest.raises(EmbeddingUnavailable, match="gives no answer about job"):
        describe()
    api.start()


def test_an_instance_type_that_cannot_be_is_for_the_person(api):
    def respond(call: Call) -> Answer:
        raise AssertionError("nothing is sent")

    api.respond = respond
    endpoint = ENDPOINT.model_copy(update={"batch_instance_count": 0})
    with pytest.raises(EmbeddingRejected, match="Check its model and instance type"):
        sagemaker_jobs.create(endpoint, "job", source="s3://b/in/", target="s3://b/out")
