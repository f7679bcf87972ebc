import orjson
import pytest
from django.test import Client

from surfaces.api.contract import MOST_REQUESTS
from surfaces.contracts import RecommendResponse
from tests.surfaces.api.conftest import (
    SCOPED_KEY,
    Api,
    Publish,
    assert_problem,
    check_problem,
    failing,
    open_to_callers,
    surface,
)


def test_an_answer_has_the_contracts_shape(api: Api, shelf: str):
    response = api.post(shelf, {"user_id": "u1", "limit": 2})

    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"
    answer = orjson.loads(response.content)
    assert set(answer) == {
        "request_id",
        "surface",
        "revision",
        "build",
        "variant",
        "items",
        "degraded",
        "fallback",
        "timings_ms",
    }
    assert (answer["surface"], answer["revision"], answer["variant"]) == ("shelf", 7, None)
    assert [set(item) for item in answer["items"]] == [{"id", "rank", "score", "fields"}] * 2
    assert [item["id"] for item in answer["items"]] == ["d1", "d2"]
    assert answer["fallback"]["level"] == "default_list"
    RecommendResponse.model_validate(answer)


def test_explain_adds_what_engineers_want(api: Api, shelf: str):
    answer = orjson.loads(api.post(shelf, {"explain": True}).content)

    assert answer["debug"]["candidates"] == 0


def test_get_answers_as_post_does(api: Api, shelf: str):
    by_get = orjson.loads(api.get(shelf, "user_id=u1&limit=2&exclude_ids=d1,d3").content)
    by_post = orjson.loads(
        api.post(shelf, {"user_id": "u1", "limit": 2, "exclude_ids": ["d1", "d3"]}).content
    )

    assert [item["id"] for item in by_get["items"]] == ["d2", "d4"]
    assert by_get["items"] == by_post["items"]


def test_head_answers_without_a_body(api: Api, shelf: str):
    response = api.client.head(
        f"/api/v1/surfaces/{shelf}/recommendations",
        headers={"Authorization": f"Api-Key {api.key}"},
    )

    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize("given", ["abc-DEF_1.2", "x" * 64])
def test_the_callers_request_id_comes_back(api: Api, shelf: str, given: str):
    response = api.post(shelf, {}, X_Request_Id=given)

    assert response["X-Request-Id"] == given
    assert orjson.loads(response.content)["request_id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\tb", "é", "<script>"])
def test_any_other_request_id_is_replaced(api: Api, shelf: str, given: str):
    response = api.post(shelf, {}, X_Request_Id=given)

    made = response["X-Request-Id"]
    assert len(made) == 32
    assert int(made, 16)
    assert orjson.loads(response.content)["request_id"] == made


def test_each_request_without_an_id_gets_its_own(api: Api, shelf: str):
    assert api.post(shelf, {})["X-Request-Id"] != api.post(shelf, {})["X-Request-Id"]


def test_an_unknown_surface_is_a_problem_that_names_no_other(api: Api, shelf: str):
    response = api.post("nope", {})

    problem = assert_problem(response, 404, "unknown_surface")
    assert '"nope"' in problem["detail"]
    assert shelf not in problem["detail"]


def test_an_unknown_surface_is_told_before_its_body_is_read(api: Api, shelf: str):
    response = api.send("/api/v1/surfaces/nope/recommendations", b"{", "text/plain")

    assert_problem(response, 404, "unknown_surface")


@pytest.mark.parametrize("slug", ["a%2Fb", "%00", "%F0%9F%98%80", "a b", "..", "x" * 3000])
def test_odd_slugs_are_problems(api: Api, shelf: str, slug: str):
    response = api.send(f"/api/v1/surfaces/{slug}/recommendations", b"{}")

    assert response.status_code == 404
    check_problem(orjson.loads(response.content))


@pytest.mark.parametrize("method", ["put", "patch", "delete", "options", "trace"])
def test_other_methods_are_refused_with_those_allowed(api: Api, shelf: str, method: str):
    response = getattr(api.client, method)(
        f"/api/v1/surfaces/{shelf}/recommendations",
        headers={"Authorization": f"Api-Key {api.key}"},
    )

    assert_problem(response, 405, "method_not_allowed")
    assert response["Allow"] == "GET, HEAD, POST"


def test_a_page_takes_post_only(api: Api, shelf: str):
    response = api.client.get(
        "/api/v1/recommendations", headers={"Authorization": f"Api-Key {api.key}"}
    )

    assert_problem(response, 405, "method_not_allowed")
    assert response["Allow"] == "POST"


@pytest.mark.parametrize("path", ["/api/v1/nope", "/api/v1/", "/api/nope", "/api/v1/surfaces"])
def test_other_addresses_of_the_api_are_problems(api: Api, path: str):
    assert_problem(api.client.get(path), 404, "not_found")


def test_so_they_are_to_a_post_without_a_csrf_token():
    client = Client(enforce_csrf_checks=True)

    assert_problem(client.post("/api/v1/nope"), 404, "not_found")


@pytest.mark.parametrize("path", ["/api/v1/nope", "/api/v1/"])
def test_so_they_are_while_debug_is_on(api: Api, settings, path: str):
    settings.DEBUG = True

    assert_problem(api.client.get(path), 404, "not_found")


def test_pages_outside_the_api_stay_html(api: Api):
    response = api.client.get("/nope")

    assert response.status_code == 404
    assert response["Content-Type"].startswith("text/html")


def test_a_host_that_is_not_allowed_is_a_problem(api: Api, shelf: str, settings):
    settings.ALLOWED_HOSTS = ["shop.example"]

    response = api.post(shelf, {}, Host="evil.example")

    assert_problem(response, 400, "bad_request")


def test_a_surface_that_fails_fast_says_when_to_come_again(api: Api, shelf: str):
    response = api.post("strict", {})

    problem = assert_problem(response, 503, "unavailable")
    assert response["Retry-After"] == "1"
    assert "no_live_build" in problem["detail"]


def test_every_wrong_field_is_named(api: Api, shelf: str):
    response = api.post(
        shelf,
        {
            "query": 5,
            "item_ids": ["a", "", 7],
            "limit": 0,
            "context": {"region": ["us"], "": 1},
            "colour": "red",
        },
    )

    problem = assert_problem(
        response,
        400,
        "bad_request",
        "query",
        "item_ids.1",
        "item_ids.2",
        "context.region",
        "context.",
        "limit",
        "colour",
    )
    unknown = problem["errors"][-1]
    assert unknown["code"] == "unknown"
    assert "query, item_ids, user_id" in unknown["message"]


def test_wrong_filters_and_limits_of_the_surface_are_named(api: Api, publish: Publish, gone_index):
    publish(
        surface(filters=open_to_callers("price", "category")),
        indexes={"things": gone_index},
    )

    response = api.post("shelf", {"limit": 6, "filters": {"price": {"lte": "cheap"}, "title": "x"}})

    problem = assert_problem(
        response, 400, "bad_request", "limit", "filters.price.lte", "filters.title"
    )
    assert [error["code"] for error in problem["errors"]] == ["too_large", "invalid", "not_open"]


@pytest.mark.parametrize("value", ["{}|@*\"'\\", "a|b", "-", "*", "(", "\\", "$1", "é"])
def test_signs_of_the_query_language_are_plain_values(
    api: Api, publish: Publish, gone_index, value: str
):
    publish(surface(filters=open_to_callers("category")), indexes={"things": gone_index})

    response = api.post("shelf", {"filters": {"category": [f"x{value}x"]}, "query": value})

    assert response.status_code == 200, response.content


def test_a_page_answers_each_request_in_order(api: Api, shelf: str):
    response = api.page(
        {
            "requests": [
                {"surface": "shelf", "limit": 1},
                {"surface": "nope"},
                {"surface": "strict"},
                {"surface": "other", "limit": "many"},
                "not an object",
                {"limit": 1},
                {"surface": "other", "limit": 2},
            ]
        },
        X_Request_Id="page-1",
    )

    assert response.status_code == 200
    answers = orjson.loads(response.content)["responses"]
    assert [answer.get("code", answer.get("surface")) for answer in answers] == [
        "shelf",
        "unknown_surface",
        "unavailable",
        "bad_request",
        "bad_request",
        "bad_request",
        "other",
    ]
    assert {answer["request_id"] for answer in answers} == {"page-1"}
    assert [len(answer["items"]) for answer in answers if "items" in answer] == [1, 2]
    for answer in answers:
        if "code" in answer:
            check_problem(answer)
    assert answers[3]["errors"][0]["field"] == "limit"
    assert answers[5]["errors"][0] == {
        "field": "surface",
        "code": "required",
        "message": "This field is needed.",
    }


def test_a_page_keeps_to_the_keys_surfaces(shelf: str):
    response = Api(SCOPED_KEY).page({"requests": [{"surface": "shelf"}, {"surface": "other"}]})

    first, second = orjson.loads(response.content)["responses"]
    assert first["surface"] == "shelf"
    assert second["code"] == "out_of_scope"


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ([], ["body"]),
        ({}, ["requests"]),
        ({"requests": []}, ["requests"]),
        ({"requests": {"surface": "shelf"}}, ["requests"]),
        ({"requests": [{"surface": "shelf"}] * (MOST_REQUESTS + 1)}, ["requests"]),
        ({"requests": [{"surface": "shelf"}], "limit": 3}, ["limit"]),
        ({"extra": 1}, ["extra", "requests"]),
    ],
)
def test_a_wrong_page_is_refused_as_a_whole(api: Api, shelf: str, body, fields: list[str]):
    assert_problem(api.page(body), 400, "bad_request", *fields)


def test_a_full_page_is_answered(api: Api, shelf: str):
    response = api.page({"requests": [{"surface": "shelf"}] * MOST_REQUESTS})

    answers = orjson.loads(response.content)["responses"]
    assert [answer["surface"] for answer in answers] == ["shelf"] * MOST_REQUESTS


def test_a_fault_of_the_platform_is_a_problem_and_logged(
    api: Api, publish: Publish, monkeypatch, caplog
):
    # A document that no publish would let through: the pipeline cannot cut by it.
    publish(surface(limit=-5), failing())
    api.client.raise_request_exception = False

    response = api.post("shelf", {}, X_Request_Id="broken-1")

    problem = assert_problem(response, 500, "internal_error")
    assert problem["request_id"] == "broken-1"
    assert "islice" not in response.content.decode()
    [record] = [r for r in caplog.records if "request failed" in r.getMessage()]
    assert "broken-1" in record.getMessage()
    caplog.clear()
    [entry, _] = orjson.loads(
        api.page({"requests": [{"surface": "shelf"}, {"surface": "strict"}]}).content
    )["responses"]
    assert entry["code"] == "internal_error"
    assert any("request failed" in record.getMessage() for record in caplog.records)
