from collections.abc import Mapping

import pytest
from django.test import override_settings
from structlog.testing import capture_logs

from surfaces.api.calls import pseudonym
from tests.surfaces.api.conftest import Api, Publish, surface


def lines(
    api: Api, slug: str, body: Mapping[str, object], **headers: str
) -> list[dict[str, object]]:
    with capture_logs() as logs:
        api.post(slug, body, **headers)
    return [dict(line) for line in logs if line["event"] == "recommend"]


def test_a_call_is_one_line(api: Api, shelf: str):
    [line] = lines(api, shelf, {"limit": 2}, X_Request_Id="r-1")

    assert line["request_id"] == "r-1"
    assert line["surface"] == "shelf"
    assert line["outcome"] == "fallback"
    assert line["fallback"] == "index:no_live_build"
    assert line["key"] == "everything"
    assert (line["revision"], line["items"]) == (7, 2)
    assert isinstance(line["ms"], float)


def test_nobody_is_named_in_it(api: Api, shelf: str):
    secrets = {
        "user_id": "jane@example.com",
        "session_id": "session-4711",
        "query": "pregnancy test",
        "context": {"email": "jane@example.org"},
    }

    [line] = lines(api, shelf, secrets)

    for text in ("jane", "4711", "pregnancy", api.key or ""):
        assert text not in str(line)
    assert line["user"] == pseudonym("jane@example.com")


def test_a_user_has_one_pseudonym_in_each_installation():
    assert pseudonym("u1") == pseudonym("u1") != pseudonym("u2")
    here = pseudonym("u1")
    with override_settings(SECRET_KEY="another"):
        assert pseudonym("u1") != here


def test_a_refused_call_is_a_line_too(shelf: str):
    [no_key] = lines(Api(key=None), shelf, {})
    [wrong] = lines(Api(), shelf, {"limit": "x"})
    [unknown] = lines(Api(), "nope", {})

    assert (no_key["outcome"], no_key["surface"]) == ("missing_key", "")
    assert (wrong["outcome"], wrong["surface"]) == ("bad_request", "shelf")
    assert (unknown["outcome"], unknown["surface"]) == ("unknown_surface", "")


def test_a_page_is_a_line_for_each_surface(api: Api, publish: Publish):
    publish(surface("a"), surface("b"))

    with capture_logs() as logs:
        api.page({"requests": [{"surface": "a"}, {"surface": "b"}]})

    found = sorted(
        (line["surface"], line["outcome"]) for line in logs if line["event"] == "recommend"
    )
    assert found == [("a", "fallback"), ("b", "fallback")]


def test_a_page_that_is_refused_is_a_line(api: Api, shelf: str):
    with capture_logs() as logs:
        api.page({"requests": []})

    assert [line["outcome"] for line in logs if line["event"] == "recommend"] == ["bad_request"]


def test_a_refused_call_is_not_told_twice(shelf: str, caplog: pytest.LogCaptureFixture):
    Api(key=None).post(shelf, {})
    Api().client.get("/nowhere")

    said = [record.getMessage() for record in caplog.records if record.name == "django.request"]
    assert said == ["Not Found: /nowhere"]
