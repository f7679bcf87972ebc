from io import StringIO
from typing import Any

import orjson
import pytest
import yaml
from django.conf import settings
from django.core.management import call_command
from drf_spectacular.validation import validate_schema
from pydantic import BaseModel

from surfaces.api.items_contract import ItemsOutcome, ItemsToDelete, ItemsToPut
from surfaces.api.problems import CODES
from surfaces.contracts import RecommendRequest
from tests.surfaces.api.conftest import Api

SURFACE = "/api/v1/surfaces/{slug}/recommendations"
PAGE = "/api/v1/recommendations"
ITEMS = "/api/v1/indexes/{slug}/items"
DELETE = "/api/v1/indexes/{slug}/items/delete"


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    out = StringIO()
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=out)
    loaded: dict[str, Any] = yaml.safe_load(out.getvalue())
    validate_schema(loaded)
    return loaded


def test_every_call_is_documented(schema: dict[str, Any]):
    documented = {path: set(methods) for path, methods in schema["paths"].items()}

    assert documented == {
        SURFACE: {"get", "post"},
        PAGE: {"post"},
        ITEMS: {"put"},
        DELETE: {"post"},
    }


def test_every_call_needs_the_key(schema: dict[str, Any]):
    scheme = schema["components"]["securitySchemes"]["ApiKey"]

    assert (scheme["type"], scheme["in"], scheme["name"]) == ("apiKey", "header", "Authorization")
    for methods in schema["paths"].values():
        for operation in methods.values():
            assert operation["security"] == [{"ApiKey": []}]


def test_every_problem_is_documented_where_it_can_happen(schema: dict[str, Any]):
    found = set()
    for methods in schema["paths"].values():
        for operation in methods.values():
            for status, response in operation["responses"].items():
                if status == "200":
                    continue
                [content] = response["content"].items()
                assert content[0] == "application/problem+json"
                assert content[1]["schema"]["$ref"].endswith("/Problem")
                for example in content[1]["examples"].values():
                    assert example["value"]["status"] == int(status)
                    found.add(example["value"]["code"])

    # These answer what is not a documented call.
    assert set(CODES) - found == {"forbidden", "not_found", "method_not_allowed"}


def test_every_code_is_in_the_guide():
    guide = (settings.BASE_DIR / "docs" / "api.md").read_text()

    assert [code for code in CODES if f"`{code}`" not in guide] == []


def test_the_contracts_types_are_the_schemas(schema: dict[str, Any]):
    types = schema["components"]["schemas"]

    assert set(types["RecommendRequest"]["properties"]) >= {"query", "item_ids", "filters", "limit"}
    assert types["RecommendRequest"]["additionalProperties"] is False
    assert types["RecommendRequest"]["properties"]["limit"]["anyOf"][0]["maximum"] == 1000
    body = schema["paths"][SURFACE]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"]["$ref"].endswith("/RecommendRequest")
    answer = schema["paths"][SURFACE]["post"]["responses"]["200"]["content"]["application/json"]
    assert answer["schema"]["$ref"].endswith("/RecommendResponse")
    assert answer["examples"]["Answer"]["value"]["items"][0]["rank"] == 1


def test_the_examples_of_requests_are_valid_requests(schema: dict[str, Any]):
    body = schema["paths"][SURFACE]["post"]["requestBody"]["content"]["application/json"]
    for example in body["examples"].values():
        RecommendRequest.model_validate(example["value"], strict=True)


@pytest.mark.parametrize(
    ("path", "method", "model"), [(ITEMS, "put", ItemsToPut), (DELETE, "post", ItemsToDelete)]
)
def test_the_examples_of_changes_are_valid(
    schema: dict[str, Any], path: str, method: str, model: type[BaseModel]
):
    operation = schema["paths"][path][method]
    body = operation["requestBody"]["content"]["application/json"]
    assert body["schema"]["$ref"].endswith(f"/{model.__name__}")
    for example in body["examples"].values():
        model.model_validate(example["value"])
    [outcome] = operation["responses"]["200"]["content"]["application/json"]["examples"].values()
    ItemsOutcome.model_validate(outcome["value"], strict=True)


def test_get_takes_every_field_of_the_contract(schema: dict[str, Any]):
    parameters = schema["paths"][SURFACE]["get"]["parameters"]
    assert {p["name"] for p in parameters if p["in"] == "query"} == set(
        RecommendRequest.model_fields
    )


def test_the_schema_and_its_page_are_served_without_a_key():
    api = Api(key=None)

    schema = api.client.get("/api/v1/schema/", headers={"Accept": "application/json"})
    page = api.client.get("/api/v1/docs/")

    assert orjson.loads(schema.content)["openapi"].startswith("3.1")
    assert page.status_code == 200
    assert b"/api/v1/schema/" in page.content
    # Nothing is fetched from another host: shops keep their admin networks closed.
    assert b"https://" not in page.content.replace(b"https://github.com", b"")
