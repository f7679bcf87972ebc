import orjson
import pytest

from surfaces.digest import digest
from surfaces.document import KeyScope
from surfaces.registry import Registry
from tests.surfaces.api.conftest import KEY, SCOPED_KEY, Api, Publish, assert_problem, surface


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Api-Key",
        "Api-Key ",
        "Bearer abc",
        "Basic dTpw",
        KEY,
        f"Token {KEY}",
        f"Api-Key:{KEY}",
    ],
)
def test_without_a_key_the_header_is_explained(shelf: str, header: str | None):
    headers = {} if header is None else {"Authorization": header}

    response = Api(key=None).post(shelf, {}, **headers)

    problem = assert_problem(response, 401, "missing_key")
    assert response["WWW-Authenticate"] == 'Api-Key realm="recplatform"'
    assert "Authorization: Api-Key" in problem["detail"]


@pytest.mark.parametrize(
    "key", ["rp_wrong", KEY + "x", KEY[:-1], KEY.upper(), "é", digest(KEY), "x" * 5000, "a b"]
)
def test_a_wrong_key_is_refused(shelf: str, key: str):
    response = Api(key).post(shelf, {})

    assert_problem(response, 401, "invalid_key")
    assert response["WWW-Authenticate"] == 'Api-Key realm="recplatform"'
    assert key.encode() not in response.content


def test_a_revoked_key_is_refused(publish: Publish):
    publish(surface())
    assert Api().post("shelf", {}).status_code == 200

    publish(surface(), keys={})

    assert_problem(Api().post("shelf", {}), 401, "invalid_key")


@pytest.mark.parametrize("scheme", ["Api-Key", "api-key", "API-KEY"])
def test_the_scheme_is_read_in_any_case(shelf: str, scheme: str):
    response = Api(key=None).post(shelf, {}, Authorization=f"{scheme}  {KEY} ")

    assert response.status_code == 200


def test_a_scoped_key_calls_its_surface(shelf: str):
    assert Api(SCOPED_KEY).post(shelf, {}).status_code == 200


def test_a_scoped_key_learns_nothing_of_other_surfaces(shelf: str):
    existing = orjson.loads(Api(SCOPED_KEY).post("other", {}, X_Request_Id="a").content)
    unknown = orjson.loads(Api(SCOPED_KEY).post("nope", {}, X_Request_Id="a").content)

    assert existing["code"] == "out_of_scope"
    assert existing["status"] == 403
    existing["detail"] = existing["detail"].replace("other", "nope")
    assert existing == unknown


def test_a_key_without_surfaces_calls_none(publish: Publish):
    publish(surface(), keys={digest(KEY): KeyScope(name="new", surfaces=())})

    assert_problem(Api().post("shelf", {}), 403, "out_of_scope")


def test_before_the_first_load_the_platform_is_not_ready(monkeypatch):
    empty = Registry(store=EmptyStore())
    monkeypatch.setattr("surfaces.api.auth.registry", empty)

    response = Api().post("shelf", {})

    empty.stop()
    assert_problem(response, 503, "not_ready")
    assert response["Retry-After"] == "1"


class EmptyStore:
    def version(self) -> None:
        return None

    def read(self) -> None:
        return None
