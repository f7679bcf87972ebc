import io

import orjson
import pytest
from django.core.handlers.wsgi import WSGIRequest
from hypothesis import given
from hypothesis import strategies as st

from surfaces.api.bodies import LARGEST_BODY, LARGEST_DISCARDED, read_json
from surfaces.api.problems import ApiProblem
from tests.surfaces.api.conftest import Api, assert_problem

PATH = "/api/v1/surfaces/shelf/recommendations"


class Counted(io.BytesIO):
    """A body that knows how much of it was read."""

    taken = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.taken += len(data)
        return data


def request(body: io.BytesIO, **environ: object) -> WSGIRequest:
    return WSGIRequest(
        {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": PATH,
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "CONTENT_TYPE": "application/json",
            "wsgi.input": body,
            **environ,
        }
    )


def refused(http: WSGIRequest) -> ApiProblem:
    with pytest.raises(ApiProblem) as caught:
        read_json(http)
    return caught.value


def test_a_body_that_says_it_is_far_too_large_is_not_read():
    body = Counted(b"x" * 1000)

    problem = refused(request(body, CONTENT_LENGTH=str(LARGEST_DISCARDED + 1)))

    assert (problem.code, problem.status) == ("too_large", 413)
    assert body.taken == 0


def test_a_body_somewhat_too_large_is_taken_off_the_wire():
    body = Counted(b"x" * (LARGEST_BODY + 1))

    problem = refused(request(body, CONTENT_LENGTH=str(LARGEST_BODY + 1)))

    assert problem.code == "too_large"
    assert body.taken == LARGEST_BODY + 1


def test_a_chunked_body_without_end_is_given_up():
    body = Counted(b" " * (LARGEST_DISCARDED * 2))

    problem = refused(
        request(body, HTTP_TRANSFER_ENCODING="chunked", **{"wsgi.input_terminated": True})
    )

    assert problem.code == "too_large"
    assert body.taken <= LARGEST_DISCARDED + 2 * LARGEST_BODY


def test_a_chunked_body_within_the_limit_is_taken():
    http = request(
        io.BytesIO(b'{"a": 1}'),
        HTTP_TRANSFER_ENCODING="gzip, Chunked",
        **{"wsgi.input_terminated": True},
    )

    assert read_json(http) == {"a": 1}


def test_a_server_that_cannot_end_a_chunked_body_needs_a_length():
    problem = refused(request(io.BytesIO(b"{}"), HTTP_TRANSFER_ENCODING="chunked"))

    assert (problem.code, problem.status) == ("length_required", 411)


def test_the_largest_body_is_taken():
    text = b'"' + b"x" * (LARGEST_BODY - 2) + b'"'

    assert len(read_json(request(io.BytesIO(text), CONTENT_LENGTH=str(LARGEST_BODY)))) > 60_000


def test_no_body_is_no_json():
    problem = refused(request(io.BytesIO(b"")))

    assert problem.code == "malformed_json"


def test_a_megabyte_is_refused_over_http(api: Api, shelf: str):
    response = api.send(PATH, b'{"query": "' + b"x" * 1_000_000 + b'"}')

    assert_problem(response, 413, "too_large")


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json"],
)
def test_another_content_type_is_refused(api: Api, shelf: str, content_type: str):
    problem = assert_problem(api.send(PATH, b"{}", content_type), 415, "unsupported_media_type")

    assert "Content-Type: application/json" in problem["detail"]


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
def test_json_is_taken_with_its_parameters(api: Api, shelf: str, content_type: str):
    assert api.send(PATH, b"{}", content_type).status_code == 200


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"   ", "line 1"),
        (b"{", "line 1"),
        (b'{"limit": 1,}', "line 1 column 12"),
        (b'{\n"limit": NaN}', "line 2 column 10"),
        (b'{"context": {"a": Infinity}}', "column 19"),
        (b'{"context": {"a": 1e999}}', "infinity"),
        (b"{'limit': 1}", "column 2"),
        (b'{"query": "\xff"}', "UTF-8"),
        (b'{"query": "\xed\xa0\x80"}', "UTF-8"),
        (b'{"query": "\\ud800"}', "surrogate"),
        (b'\xef\xbb\xbf{"limit": 1}', "BOM"),
        (b"{}{}", "column 3"),
        (b"[" * 5000, "depth"),
        ('{"limit": 1}'.encode("utf-16"), "UTF-8"),
    ],
)
def test_malformed_json_is_refused_with_its_place(api: Api, shelf: str, body: bytes, where: str):
    problem = assert_problem(api.send(PATH, body), 400, "malformed_json")

    assert where in problem["detail"]


@pytest.mark.parametrize("body", [b"[]", b"null", b"1", b'"text"', b"true"])
def test_json_that_is_no_object_is_refused(api: Api, shelf: str, body: bytes):
    assert_problem(api.send(PATH, body), 400, "bad_request", "body")


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"limit": "3"}, ["limit"]),
        ({"limit": 3.5}, ["limit"]),
        ({"limit": True}, ["limit"]),
        ({"limit": 1e30}, ["limit"]),
        ({"limit": -1}, ["limit"]),
        ({"explain": "yes"}, ["explain"]),
        ({"explain": 1}, ["explain"]),
        ({"query": "x" * 1001}, ["query"]),
        ({"item_ids": "a"}, ["item_ids"]),
        ({"item_ids": ["a"] * 51}, ["item_ids"]),
        ({"item_ids": ["x" * 257]}, ["item_ids.0"]),
        ({"exclude_ids": ["a", None]}, ["exclude_ids.1"]),
        ({"exclude_ids": ["a"] * 501}, ["exclude_ids"]),
        ({"context": [1]}, ["context"]),
        ({"context": {"a": {"b": 1}}}, ["context.a"]),
        ({"context": {"x" * 65: 1}}, ["context." + "x" * 65]),
        ({"context": {str(n): n for n in range(51)}}, ["context"]),
        ({"filters": "price<3"}, ["filters"]),
        ({"filters": {"": 1}}, ["filters."]),
        ({"user_id": 17}, ["user_id"]),
        ({"session_id": "x" * 257}, ["session_id"]),
        ({"Limit": 3}, ["Limit"]),
    ],
)
def test_a_wrong_value_is_named_once(api: Api, shelf: str, body, fields: list[str]):
    assert_problem(api.post(shelf, body), 400, "bad_request", *fields)


def test_deeply_nested_filters_are_refused(api: Api, shelf: str):
    body = b'{"filters": {"a": ' + b"[" * 900 + b"]" * 900 + b"}}"

    assert_problem(api.send(PATH, body), 400, "bad_request", "filters.a")


def test_of_very_many_errors_some_are_listed(api: Api, shelf: str):
    response = api.post(shelf, {f"unknown_{n}": 1 for n in range(500)})

    problem = orjson.loads(response.content)
    assert len(problem["errors"]) == 50
    assert "495 more" in problem["detail"]


@pytest.mark.parametrize("text", ["a\x00b", "\x00", "🙂", "‮abc", "x" * 1000, "\x1b[31m"])
def test_odd_texts_are_answered(api: Api, shelf: str, text: str):
    body = {"query": text, "user_id": text[:200], "context": {"k": text}, "item_ids": [text[:200]]}

    assert api.post(shelf, body).status_code == 200


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(
    value=_json.filter(lambda value: -(2**63) <= (value if isinstance(value, int) else 0) < 2**64)
)
def test_json_is_read_as_it_was_written(value):
    try:
        text = orjson.dumps(value)
    except TypeError:  # an integer beyond 64 bits inside
        return

    assert read_json(request(io.BytesIO(text), CONTENT_LENGTH=str(len(text)))) == value
